// The distribution's OpenSSL 3: digests, MACs and random bytes for scripts; TLS for listeners and upstreams.
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
