#!/usr/bin/env bash
# Three clients that ask for /slow and wait: curl with six streams, nghttp, and curl with HTTP/1.1. What each came to stands
# beside the manifest folder, with "ended" at the end.
out=$DIR/..
ask() { # NAME COMMAND…
    name=$1
    shift
    { "$@" >"$out/$name" 2>&1; echo ended >>"$out/$name"; } >/dev/null 2>&1 </dev/null &
}
to=(--resolve "shop.test:$HTTPS_PORT:127.0.0.1" -w '%{http_version} %{http_code}\n')
ask curl curl -sk -Z "${to[@]}" "https://shop.test:$HTTPS_PORT/slow/[1-6]" -o "$out/body#1"
ask nghttp nghttp -y -v -H ':authority: shop.test' "https://$HTTPS/slow"
ask old curl -sk --http1.1 "${to[@]}" "https://shop.test:$HTTPS_PORT/slow" -D "$out/head" -o /dev/null
