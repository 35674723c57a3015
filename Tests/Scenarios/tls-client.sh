#!/usr/bin/env bash
# tls-client.sh ca NAME: makes an authority NAME beside the manifest folder.
# tls-client.sh sign CA NAME SUBJECT [DAYS]: a client's certificate and key, NAME.crt and NAME.key, signed by CA; with
#   CA "self" by itself; DAYS below zero: it has expired.
# tls-client.sh revoke CA NAME: revokes NAME, and writes the authority's list CA.crl.
# tls-client.sh list CA: writes the list without revoking anybody.
# tls-client.sh secret SECRET CA [crl]: a Secret of the namespace shop with CA's certificate in ca.crt (and its list).
set -euo pipefail
out=$DIR/..
conf() {
    mkdir -p "$out/$1.d" && touch "$out/$1.d/index" && [ -e "$out/$1.d/serial" ] || echo 1000 >"$out/$1.d/serial"
    printf '%s\n' '[ca]' 'default_ca=c' '[c]' "database=$out/$1.d/index" "serial=$out/$1.d/serial" \
        "new_certs_dir=$out/$1.d" 'default_md=sha256' 'policy=p' 'copy_extensions=copy' 'unique_subject=no' \
        'default_crl_days=30' '[p]' 'commonName=supplied' 'organizationName=optional' >"$out/$1.d/conf"
}
ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
case $1 in
ca)
    openssl req -x509 "${ec[@]}" -keyout "$out/$2.key" -out "$out/$2.crt" -days 30 -subj "/CN=$2" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
    ;;
sign)
    openssl req -new "${ec[@]}" -keyout "$out/$3.key" -out "$out/$3.csr" -subj "$4" \
        -addext "subjectAltName=DNS:$3.clients.test,URI:spiffe://shop/$3" 2>/dev/null
    if [ "$2" = self ]; then signer=(-selfsign -keyfile "$out/$3.key") && ca=$3; else
        signer=(-keyfile "$out/$2.key" -cert "$out/$2.crt") && ca=$2
    fi
    conf "$ca"
    dates=(-days "${5:-30}")
    if ((${5:-30} < 0)); then dates=(-startdate 20200101000000Z -enddate 20210101000000Z); fi
    openssl ca -batch -config "$out/$ca.d/conf" "${signer[@]}" -in "$out/$3.csr" -out "$out/$3.crt" "${dates[@]}" \
        -notext 2>/dev/null
    ;;
revoke | list)
    conf "$2"
    args=(-config "$out/$2.d/conf" -keyfile "$out/$2.key" -cert "$out/$2.crt")
    [ "$1" = list ] || openssl ca "${args[@]}" -revoke "$out/$3.crt" 2>/dev/null
    openssl ca "${args[@]}" -gencrl -out "$out/$2.crl" 2>/dev/null
    ;;
secret)
    {
        printf 'apiVersion: v1\nkind: Secret\nmetadata: { name: %s, namespace: shop }\nstringData:\n' "$2"
        for part in crt ${4:-}; do
            printf '  ca.%s: |\n' "$part"
            sed 's/^/    /' "$out/$3.$part"
        done
    } >"$out/$2.new"
    mv "$out/$2.new" "$DIR/$2.yaml"
    ;;
esac
