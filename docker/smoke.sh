#!/usr/bin/env bash
# Imports drawn people into a running composition and searches through it. BASE_URL says where it answers, SERVICE what
# is killed in between; for replicas: COMPOSE_PROFILES=distributed SERVICE=replica BASE_URL=http://127.0.0.1:8080.
# Without replicas, the crops come from a folder of the host.
set -euo pipefail
BASE_URL=${BASE_URL:-http://127.0.0.1:8000}
SERVICE=${SERVICE:-passerby}
inside() { docker compose exec -T "$SERVICE" passerby-entrypoint "$@"; }

key=$(inside sh -c 'printf %s "$PASSERBY_API_KEY"')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "without the key nothing is told"
[ "$(curl -s -o /dev/null -w '%{http_code}' "$BASE_URL/cameras")" = 401 ]

echo "import drawn people with the command line"
if [ "$SERVICE" = passerby ]; then
  PASSERBY_CROPS=$(cd "$(dirname "$0")/../model/datasets/drawn" && pwd) docker compose run --rm -T import /crops
else
  inside passerby import "$(inside python -c 'from model.datasets.synthetic import DRAWN_PEOPLE; print(DRAWN_PEOPLE)')"
fi
inside passerby status

echo "search, from outside, over HTTP"
crop=$(curl -fsS -H "X-API-Key: $key" "$BASE_URL/crops?limit=1")
id=$(printf %s "$crop" | sed -E 's/.*"id":"([0-9a-z]{26})".*/\1/')
person=$(printf %s "$crop" | sed -E 's/.*"person_id":"([^"]+)".*/\1/')
camera=$(printf %s "$crop" | sed -E 's/.*"camera_id":"([^"]+)".*/\1/')
curl -fsS -H "X-API-Key: $key" "$BASE_URL/crops/$id/image" -o "$work/query.jpg"
curl -fsS -H "X-API-Key: $key" -F "files=@$work/query.jpg" -F "exclude_camera_ids=$camera" -F top_k=5 "$BASE_URL/search" -o "$work/answer.json"
sheet=$(sed -E 's/.*"sheet_url":"([^"]+)".*/\1/' "$work/answer.json")
curl -fsS -H "X-API-Key: $key" "$BASE_URL$sheet" -o "$work/sheet.jpg"
[ "$(head -c 2 "$work/sheet.jpg" | od -An -tx1 | tr -d ' ')" = ffd8 ]
first=$(grep -oE '"person_id":"[^"]+"' "$work/answer.json" | head -1)
echo "asked for person $person by camera $camera excluded; first match: $first"
[ "$first" = "\"person_id\":\"$person\"" ]

echo "crops are still found after the service was killed"
docker compose kill -s KILL "$SERVICE" >/dev/null
docker compose up -d --wait --no-build >/dev/null
curl -fsS -H "X-API-Key: $key" -F "crop_ids=$id" -F top_k=1 "$BASE_URL/search" | grep -q '"rank":1'
echo "smoke test passed"
