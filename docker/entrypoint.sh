#!/bin/sh
# A container listens to others, so it needs an API key: the one that is set, or one made at the first start.
set -eu
if [ -z "${PASSERBY_API_KEY:-}" ]; then
  file="$PASSERBY_DATA_DIR/api-key"
  if [ ! -s "$file" ]; then
    (umask 077 && python -c 'import secrets; print(secrets.token_urlsafe(32))' > "$file")
    echo "PASSERBY_API_KEY is not set: made a key; read it with: docker compose exec passerby cat $file" >&2
  fi
  PASSERBY_API_KEY=$(cat "$file")
  export PASSERBY_API_KEY
fi
exec "$@"
