#!/usr/bin/env bash
# tls-secret.sh NAME rsa|ec|ec:CURVE DAYS HOST…: makes a self-signed certificate and puts it into the manifest folder, as a
# Secret NAME of the namespace shop. The PEM files stay beside the folder. DAYS below zero: it has expired; as 12s: it expires in
# so many seconds, after a life of a hundred more.
set -euo pipefail
name=$1 kind=$2 days=$3
shift 3
out=$DIR/..
case $kind in
rsa) key=(-newkey rsa:2048) ;;
ec) key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256) ;;
ec:*) key=(-newkey ec -pkeyopt "ec_paramgen_curve:${kind#*:}") ;;
esac
names=$(printf ',DNS:%s' "$@")
dates=(-startdate 20200101000000Z -enddate 20210101000000Z)
if [[ $days == *s ]]; then
    dates=(-startdate "$(date -u -d '100 seconds ago' +%Y%m%d%H%M%SZ)" -enddate "$(date -u -d "${days%s} seconds" +%Y%m%d%H%M%SZ)")
    days=-1
fi
if ((days < 0)); then
    # `openssl req` makes no certificate of the past; `openssl x509` with explicit dates needs a newer one: `ca` does both.
    mkdir -p "$out/ca" && : >"$out/ca/index" && echo 01 >"$out/ca/serial"
    openssl req -quiet -new -nodes "${key[@]}" -keyout "$out/$name.key" -out "$out/$name.csr" -subj "/CN=$name" \
        -addext "subjectAltName=${names#,}" 2>/dev/null || openssl req -new -nodes "${key[@]}" -keyout "$out/$name.key" \
        -out "$out/$name.csr" -subj "/CN=$name" -addext "subjectAltName=${names#,}" 2>/dev/null
    printf '%s\n' '[ca]' 'default_ca=c' '[c]' "database=$out/ca/index" "serial=$out/ca/serial" "new_certs_dir=$out/ca" \
        'default_md=sha256' 'policy=p' 'copy_extensions=copy' 'unique_subject=no' '[p]' 'commonName=supplied' >"$out/ca/conf"
    openssl ca -batch -config "$out/ca/conf" -selfsign -keyfile "$out/$name.key" -in "$out/$name.csr" -out "$out/$name.crt" \
        "${dates[@]}" -notext 2>/dev/null
else
    openssl req -x509 -nodes "${key[@]}" -keyout "$out/$name.key" -out "$out/$name.crt" -days "$days" -subj "/CN=$name" \
        -addext "subjectAltName=${names#,}" 2>/dev/null
fi
{
    printf 'apiVersion: v1\nkind: Secret\nmetadata: { name: %s, namespace: shop }\ntype: kubernetes.io/tls\nstringData:\n' "$name"
    for part in crt key; do
        printf '  tls.%s: |\n' "$part"
        sed 's/^/    /' "$out/$name.$part"
    done
} >"$out/$name.new"
mv "$out/$name.new" "$DIR/$name.yaml"
