#!/bin/sh
# A container listens to others, so it needs an API key: the one that is set, or one made at the first start.
set -eu

fail() {
  echo "error: $1" >&2
  exit 2
}

if [ "$*" = "passerby serve" ] && [ ! -w "$PASSERBY_DATA_DIR" ]; then
  fail "user $(id -u) cannot write into $PASSERBY_DATA_DIR: if that is a folder of the host, run there: sudo chown -R $(id -u) FOLDER"
fi
if [ -z "${PASSERBY_API_KEY:-}" ]; then
  file="$PASSERBY_DATA_DIR/api-key"
  if [ ! -s "$file" ]; then
    new=$(mktemp "$file.XXXXXX") || fail "PASSERBY_API_KEY is not set, and no key can be written into $PASSERBY_DATA_DIR"
    python -c 'import secrets; print(secrets.token_urlsafe(32))' > "$new"
    if ln "$new" "$file" 2>/dev/null; then  # of replicas that start together, one makes the key of all
      echo "PASSERBY_API_KEY is not set: made a key; read it with: docker exec $(hostname) cat $file" >&2
    fi
    rm "$new"
  fi
  [ -r "$file" ] || fail "user $(id -u) cannot read the API key in $file"
  PASSERBY_API_KEY=$(cat "$file")
  case "$PASSERBY_API_KEY" in
    *[!!-~]*) usable=no ;;
    ????????????????*) usable=yes ;;
    *) usable=no ;;
  esac
  [ "$usable" = yes ] || fail "$file holds no API key of 16 or more ASCII letters, digits and signs: delete it, and the next start makes one"
  export PASSERBY_API_KEY
fi
exec "$@"
