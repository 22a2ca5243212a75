#!/bin/bash
# Makes an authority and what it signs, unless they are there and good for a month: certificates.sh DIRECTORY
# profile-service.crt is the service's; gateway.crt is what Envoy shows to callers, and to the service. For trying things
# out: the authority's key is thrown away, so that it signs nothing else.
set -euo pipefail

cd "${1:?usage: certificates.sh DIRECTORY}"
month=$((30 * 24 * 3600))
good() { openssl verify -CAfile ca.crt profile-service.crt gateway.crt && openssl x509 -checkend $month -in ca.crt; }
if good >/dev/null 2>&1; then exit; fi

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc)
new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
quietly() { openssl "$@" 2>/dev/null; }

quietly req -x509 "${key[@]}" -days 365 -subj '/CN=profiles of this machine' -keyout "$new/ca.key" -out "$new/ca.crt" \
    -addext keyUsage=critical,keyCertSign,cRLSign

# Signs a key of its own for these names, readable by this user of its container.
sign() {
    local name=$1 names=$2 user=$3
    quietly req "${key[@]}" -subj "/CN=$name" -keyout "$new/$name.key" -out "$new/$name.csr"
    quietly x509 -req -in "$new/$name.csr" -CA "$new/ca.crt" -CAkey "$new/ca.key" -CAcreateserial -days 365 \
        -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names") -out "$new/$name.crt"
    if ((EUID == 0)); then chown "$user" "$new/$name.key"; fi
    chmod 644 "$new/$name.crt"
    mv "$new/$name.key" "$new/$name.crt" .
}

sign profile-service DNS:profile-service 65532
sign gateway DNS:gateway,DNS:localhost,IP:127.0.0.1 101
chmod 644 "$new/ca.crt"
mv "$new/ca.crt" .
