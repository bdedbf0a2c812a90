#!/bin/sh
# A container listens to others, so it needs an API key: the one that is set, or one made at the first start.
set -eu
if [ -z "${PASSERBY_API_KEY:-}" ]; then
  file="$PASSERBY_DATA_DIR/api-key"
  if [ ! -s "$file" ]; then
    new=$(mktemp "$file.XXXXXX")
    python -c 'import secrets; print(secrets.token_urlsafe(32))' > "$new"
    if ln "$new" "$file" 2>/dev/null; then  # of replicas that start together, one makes the key of all
      echo "PASSERBY_API_KEY is not set: made a key; read it with: docker exec $(hostname) cat $file" >&2
    fi
    rm "$new"
  fi
  PASSERBY_API_KEY=$(cat "$file")
  export PASSERBY_API_KEY
fi
exec "$@"
