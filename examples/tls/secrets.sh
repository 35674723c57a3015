#!/usr/bin/env bash
# secrets.sh FOLDER: makes what a cluster has from cert-manager or from its operator, and puts it into FOLDER: an authority
# (ca.crt), a certificate of it for shop.test and its hosts, one for each of the partners alice and mallory, and the two
# Secrets that the Ingresses name.
set -euo pipefail
cd "$1"
new=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${new[@]}" -keyout ca.key -out ca.crt -days 90 -subj '/CN=Moon Authority' \
    -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
sign() { # NAME ALTERNATIVE-NAMES
    openssl req "${new[@]}" -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>/dev/null
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 90 -out "$1.crt" \
        -extfile <(echo "subjectAltName=$2") 2>/dev/null
}
sign shop.test DNS:shop.test,DNS:*.shop.test
sign alice DNS:alice.partners.test
sign mallory DNS:mallory.partners.test
entry() { # NAME FILE
    printf '  %s: |\n' "$1"
    sed 's/^/    /' "$2"
}
{
    printf 'apiVersion: v1\nkind: Secret\nmetadata: { name: shop-tls, namespace: shop }\ntype: kubernetes.io/tls\n'
    echo stringData:
    entry tls.crt shop.test.crt
    entry tls.key shop.test.key
    printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: { name: partners, namespace: shop }\nstringData:\n'
    entry ca.crt ca.crt
} >secrets.new
mv secrets.new secrets.yaml
