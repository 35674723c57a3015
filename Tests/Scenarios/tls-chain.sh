#!/usr/bin/env bash
# A certificate for shop.test below two authorities, in a Secret that has them in the wrong order: second, first, leaf. The
# root stays beside the folder, root.crt.
set -euo pipefail
cd "$DIR/.."
ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${ec[@]}" -keyout root.key -out root.crt -days 30 -subj /CN=root 2>/dev/null
sign() { # NAME ISSUER EXTENSIONS
    openssl req -new "${ec[@]}" -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 30 -out "$1.crt" \
        -extfile <(printf '%s\n' "$3") 2>/dev/null
}
sign first root basicConstraints=critical,CA:TRUE
sign second first basicConstraints=critical,CA:TRUE
sign shop.test second subjectAltName=DNS:shop.test
{
    printf 'apiVersion: v1\nkind: Secret\nmetadata: { name: chain, namespace: shop }\nstringData:\n  tls.crt: |\n'
    sed 's/^/    /' first.crt second.crt shop.test.crt
    printf '  tls.key: |\n'
    sed 's/^/    /' shop.test.key
} >"$DIR/chain.yaml"
