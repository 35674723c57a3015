// memmem(3)
#define _GNU_SOURCE
#include "moongate_tls.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// Mozilla's intermediate recommendation for TLS 1.2: forward secrecy and authenticated encryption only.
#define DEFAULT_CIPHERS                                                                                                \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"                         \
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"

// For TLS 1.3; the shorter key first, as in TLS 1.2: ten rounds a block instead of fourteen.
#define DEFAULT_SUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"

// How long a session may be resumed: longer than a browser's visit, shorter than the life of the key that sealed it.
#define SESSION_SECONDS (12 * 3600)
#define TICKET_KEY_SIZE 80
#define MAX_TICKET_KEYS 8

struct mg_tls_tickets {
    atomic_int references;
    pthread_mutex_t lock;
    uint8_t keys[MAX_TICKET_KEYS][TICKET_KEY_SIZE];
    size_t count;
};

struct mg_tls_trust {
    atomic_int references;
    X509_STORE *store;
    // What clients are told of whose certificates are taken.
    STACK_OF(X509_NAME) *names;
    // From when on an authority or a list counts no more, the earliest first.
    int64_t *ends;
    size_t end_count;
    size_t end_size;
    mg_tls_trust_facts facts;
    // The first of those that lack something whose name is not too long, by kind.
    char gaps[MG_TLS_GAP_KINDS][MG_TLS_GAP_SIZE];
};

struct mg_tls_context {
    SSL_CTX *ssl;
    atomic_int references;
    mg_tls_trust *trust;
    uint8_t identity[SSL_MAX_SID_CTX_LENGTH];
    size_t identity_count;
    uint8_t *alpn;
    size_t alpn_count;
    mg_tls_tickets *tickets;
};

struct mg_tls_resumption {
    atomic_int references;
    SSL_SESSION *session;
};

struct mg_tls_session {
    SSL *ssl;
    mg_tls_context *context;
    // Connecting: where the server's sessions go.
    mg_tls_resumption *resumption;
    const uint8_t *input;
    size_t input_count;
    uint8_t *room;
    size_t room_count;
    size_t room_used;
    // What the room was too small for.
    uint8_t *kept;
    size_t kept_count;
    size_t kept_size;
    mg_tls_choose choose;
    void *user;
    // What the client asked for, lower case; NULL if nothing.
    char *name;
    // After the handshake: messages of its kind that still came (KeyUpdate, renegotiation), and plain bytes.
    bool is_open;
    // A whole message of the handshake has come.
    bool has_message;
    // What time it is; 0: as the system says.
    int64_t now;
    uint64_t messages;
    uint64_t plain;
    mg_tls_error_class error;
    // The gravest thing that was found about the peer's certificate.
    int gravest;
};

// MARK: The network side of a session: OpenSSL reads from memory that is lent, and writes into room that is lent.

static int net_read(BIO *bio, char *into, size_t count, size_t *got) {
    mg_tls_session *session = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (session->error != MG_TLS_ERROR_NONE) {
        *got = 0;
        return 0;
    }
    if (session->input_count == 0) {
        BIO_set_retry_read(bio);
        *got = 0;
        return 0;
    }
    size_t n = count < session->input_count ? count : session->input_count;
    memcpy(into, session->input, n);
    session->input += n;
    session->input_count -= n;
    *got = n;
    return 1;
}

static bool keep(mg_tls_session *session, const uint8_t *from, size_t count) {
    if (session->kept_count + count > session->kept_size) {
        size_t size = session->kept_size ? session->kept_size : 4096;
        while (size < session->kept_count + count) size *= 2;
        uint8_t *bigger = realloc(session->kept, size);
        if (!bigger) return false;
        session->kept = bigger;
        session->kept_size = size;
    }
    memcpy(session->kept + session->kept_count, from, count);
    session->kept_count += count;
    return true;
}

static int net_write(BIO *bio, const char *from, size_t count, size_t *done) {
    mg_tls_session *session = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (session->error != MG_TLS_ERROR_NONE) {
        *done = 0;
        return 0;
    }
    size_t n = 0;
    // Order: nothing may overtake what is kept.
    if (session->kept_count == 0) {
        n = session->room_count - session->room_used;
        if (n > count) n = count;
        if (n) {
            memcpy(session->room + session->room_used, from, n);
            session->room_used += n;
        }
    }
    if (n < count && !keep(session, (const uint8_t *)from + n, count - n)) {
        session->error = MG_TLS_ERROR_MEMORY;
        *done = n;
        return n > 0;
    }
    *done = count;
    return 1;
}

static long net_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *net_method;
static pthread_once_t net_once = PTHREAD_ONCE_INIT;
static int session_index;

static void make_net_method(void) {
    session_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "moongate");
    if (!method) return;
    BIO_meth_set_read_ex(method, net_read);
    BIO_meth_set_write_ex(method, net_write);
    BIO_meth_set_ctrl(method, net_control);
    net_method = method;
}

// MARK: Errors

static void say(char *error, size_t size, const char *what) {
    if (!size) return;
    unsigned long code = ERR_peek_last_error();
    const char *why = code ? ERR_reason_error_string(code) : NULL;
    if (why) snprintf(error, size, "%s: %s", what, why);
    else snprintf(error, size, "%s", what);
    ERR_clear_error();
}

// What is wrong with the peer's certificate.
static mg_tls_error_class classify_certificate(const SSL *ssl) {
    switch (SSL_get_verify_result(ssl)) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: return MG_TLS_ERROR_WRONG_NAME;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID: return MG_TLS_ERROR_EXPIRED;
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG: return MG_TLS_ERROR_UNKNOWN_CA;
    default: return MG_TLS_ERROR_BAD_CERTIFICATE;
    }
}

static mg_tls_error_class classify(const SSL *ssl) {
    unsigned long code = ERR_peek_last_error();
    if (ERR_GET_LIB(code) != ERR_LIB_SSL) return code ? MG_TLS_ERROR_OTHER : MG_TLS_ERROR_CUT;
    int reason = ERR_GET_REASON(code);
    // What a server of plain HTTP answers to our hello is no record, and neither is what a client of SSH says first.
    const mg_tls_session *session = SSL_get_ex_data(ssl, session_index);
    if (reason == SSL_R_WRONG_VERSION_NUMBER && (!SSL_is_server(ssl) || !session || !session->has_message))
        return MG_TLS_ERROR_NOT_TLS;
    switch (reason) {
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION: return MG_TLS_ERROR_VERSION;
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM: return MG_TLS_ERROR_CIPHER;
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return MG_TLS_ERROR_NO_CERTIFICATE;
    case SSL_R_CERTIFICATE_VERIFY_FAILED: return classify_certificate(ssl);
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA: return MG_TLS_ERROR_UNKNOWN_CA;
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED: return MG_TLS_ERROR_EXPIRED;
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
    case SSL_R_NO_APPLICATION_PROTOCOL: return MG_TLS_ERROR_ALPN;
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST: return MG_TLS_ERROR_NOT_TLS;
    case SSL_R_UNEXPECTED_EOF_WHILE_READING: return MG_TLS_ERROR_CUT;
    default: return reason >= SSL_AD_REASON_OFFSET ? MG_TLS_ERROR_ALERT : MG_TLS_ERROR_PROTOCOL;
    }
}

static mg_tls_status status_of(mg_tls_session *session, int result) {
    if (result > 0) return MG_TLS_OK;
    int code = SSL_get_error(session->ssl, result);
    switch (code) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
    case SSL_ERROR_WANT_CLIENT_HELLO_CB: return MG_TLS_WANT;
    case SSL_ERROR_ZERO_RETURN: return MG_TLS_ENDED;
    default:
        if (session->error == MG_TLS_ERROR_NONE) session->error = classify(session->ssl);
        // A failed call leaves its reasons in a queue of the thread, where the next session would find them.
        ERR_clear_error();
        return MG_TLS_FAILED;
    }
}

// MARK: Floods

// Each of these costs us keys and an answer, and is no byte of a request: a few, and one for each MiB (RFC 8446 §4.6.3).
#define FREE_MESSAGES 32

static void watch(int is_write, int version, int type, const void *bytes, size_t count, SSL *ssl, void *argument) {
    (void)version, (void)bytes, (void)count, (void)argument;
    if (is_write || type != SSL3_RT_HANDSHAKE) return;
    mg_tls_session *session = SSL_get_ex_data(ssl, session_index);
    if (!session) return;
    session->has_message = true;
    if (!session->is_open) return;
    if (++session->messages > FREE_MESSAGES + (session->plain >> 20) && session->error == MG_TLS_ERROR_NONE)
        session->error = MG_TLS_ERROR_PROTOCOL;
}

// MARK: Contexts

// Without it OpenSSL asks whoever sits at the terminal.
static int no_password(char *into, int size, int is_write, void *user) {
    (void)into, (void)size, (void)is_write, (void)user;
    return -1;
}


static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_count, const unsigned char *offered,
                       unsigned offered_count, void *argument) {
    (void)ssl;
    mg_tls_context *context = argument;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_count, context->alpn, (unsigned)context->alpn_count, offered,
                              offered_count) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL; // RFC 7301 §3.2
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

// The sessions of a context are no more the same when one of its authorities or lists has ended: what was found of a
// client before is not resumed after.
static bool identify(mg_tls_session *session) {
    const mg_tls_context *context = session->context;
    uint8_t identity[SSL_MAX_SID_CTX_LENGTH];
    memcpy(identity, context->identity, context->identity_count);
    if (context->trust) {
        uint64_t ended = mg_tls_trust_ended(context->trust, session->now ? session->now : (int64_t)time(NULL));
        for (size_t i = 0; i < 8 && i < context->identity_count; i++) identity[i] ^= (uint8_t)(ended >> (8 * i));
    }
    return SSL_set_session_id_context(session->ssl, identity, (unsigned)context->identity_count) == 1;
}

static int choose_context(SSL *ssl, int *alert, void *argument) {
    (void)argument;
    mg_tls_session *session = SSL_get_ex_data(ssl, session_index);
    if (!session) return SSL_CLIENT_HELLO_SUCCESS;
    char name[256];
    size_t count = 0;
    const unsigned char *extension = NULL;
    size_t size = 0;
    // RFC 6066 §3: a list of names, of which one type is defined and one of each type may stand.
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_server_name, &extension, &size) && size > 5) {
        size_t list = (size_t)extension[0] << 8 | extension[1];
        size_t length = (size_t)extension[3] << 8 | extension[4];
        if (list + 2 == size && extension[2] == TLSEXT_NAMETYPE_host_name && length + 5 <= size && length <= 255) {
            for (size_t i = 0; i < length; i++) {
                unsigned char byte = extension[5 + i];
                if (byte <= 32 || byte >= 127) {
                    *alert = SSL_AD_ILLEGAL_PARAMETER;
                    return SSL_CLIENT_HELLO_ERROR;
                }
                name[count++] = (char)tolower(byte);
            }
            if (count && name[count - 1] == '.') count--;
        } else {
            *alert = SSL_AD_DECODE_ERROR;
            return SSL_CLIENT_HELLO_ERROR;
        }
    }
    // By the hello itself: of a resumed session OpenSSL knows the name of the first handshake at best.
    free(session->name);
    session->name = count ? strndup(name, count) : NULL;
    mg_tls_context *chosen = session->choose ? session->choose(session->user, name, count) : session->context;
    if (!chosen) {
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (chosen != session->context) {
        if (!SSL_set_SSL_CTX(ssl, chosen->ssl)) {
            *alert = SSL_AD_INTERNAL_ERROR;
            return SSL_CLIENT_HELLO_ERROR;
        }
        // SSL_set_SSL_CTX takes over the certificate, not what is checked about the peer's.
        SSL_set_verify(ssl, SSL_CTX_get_verify_mode(chosen->ssl), SSL_CTX_get_verify_callback(chosen->ssl));
        SSL_set_verify_depth(ssl, SSL_CTX_get_verify_depth(chosen->ssl));
        SSL_set_options(ssl, SSL_CTX_get_options(chosen->ssl));
        SSL_set_min_proto_version(ssl, SSL_CTX_get_min_proto_version(chosen->ssl));
        mg_tls_context_retain(chosen);
        mg_tls_context_release(session->context);
        session->context = chosen;
    }
    if (!identify(session)) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    return SSL_CLIENT_HELLO_SUCCESS;
}

// Tickets (RFC 5077 §4, RFC 8446 §4.6.1) are sealed with keys that replicas may share, so that a client can resume at
// any of them.
static int seal_ticket(SSL *ssl, unsigned char name[16], unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                       int seals) {
    mg_tls_session *session = SSL_get_ex_data(ssl, session_index);
    if (!session) return -1;
    mg_tls_tickets *tickets = session->context->tickets;
    if (!tickets) return 0;
    uint8_t key[TICKET_KEY_SIZE];
    int answer = 0;
    pthread_mutex_lock(&tickets->lock);
    if (seals && tickets->count) {
        memcpy(key, tickets->keys[0], TICKET_KEY_SIZE);
        answer = 1;
    } else if (!seals) {
        for (size_t i = 0; i < tickets->count; i++) {
            if (CRYPTO_memcmp(tickets->keys[i], name, 16) == 0) {
                memcpy(key, tickets->keys[i], TICKET_KEY_SIZE);
                answer = i == 0 ? 1 : 2; // 2: accept, and give the client a ticket of the newest key
                break;
            }
        }
    }
    pthread_mutex_unlock(&tickets->lock);
    if (!answer) return 0;
    if (seals) {
        memcpy(name, key, 16);
        if (RAND_bytes(iv, 16) != 1) return -1;
    }
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key + 48, 32),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    int done = seals ? EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + 16, iv)
                     : EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + 16, iv);
    if (!done || !EVP_MAC_CTX_set_params(mac, parameters)) answer = -1;
    OPENSSL_cleanse(key, sizeof key);
    return answer;
}

// That no authority of ours stands for a certificate: whoever judges it otherwise may let it pass.
static bool is_about_trust(int problem) {
    switch (problem) {
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED: return true;
    default: return false;
    }
}

// A bad certificate ends no handshake: what the request is worth without it is decided where there is a request to
// answer. The gravest fault becomes the result (SSL_get_verify_result(3)): by itself OpenSSL keeps the last, so that a
// certificate which is revoked and of nobody we know could count as the latter.
static int record_only(int is_good, X509_STORE_CTX *store) {
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    mg_tls_session *session = ssl ? SSL_get_ex_data(ssl, session_index) : NULL;
    if (!session) return is_good;
    if (!is_good) {
        int problem = X509_STORE_CTX_get_error(store);
        // Of an authority that nobody knows there is no list either: that says nothing new.
        bool is_grave = !is_about_trust(problem) &&
                        !(problem == X509_V_ERR_UNABLE_TO_GET_CRL && is_about_trust(session->gravest));
        if (session->gravest == X509_V_OK || (is_about_trust(session->gravest) && is_grave))
            session->gravest = problem;
    }
    X509_STORE_CTX_set_error(store, session->gravest);
    return 1;
}

// A server has given a session: the newest is the one to come back with.
static int keep_session(SSL *ssl, SSL_SESSION *given) {
    mg_tls_session *session = SSL_get_ex_data(ssl, session_index);
    if (!session || !session->resumption || session->error != MG_TLS_ERROR_NONE || !SSL_SESSION_is_resumable(given))
        return 0;
    SSL_SESSION_free(session->resumption->session);
    session->resumption->session = given;
    // It is ours from here on.
    return 1;
}

static int64_t seconds_of(const ASN1_TIME *time) {
    int days = 0, seconds = 0;
    ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
    int64_t result = 0;
    if (epoch && ASN1_TIME_diff(&days, &seconds, epoch, time)) result = (int64_t)days * 86400 + seconds;
    ASN1_TIME_free(epoch);
    return result;
}

// MARK: Authorities

// What a handshake costs with them: all the authorities' names are sent to each client, and the digest of a list is taken
// for each certificate that is shown.
#define MOST_AUTHORITIES (256 * 1024)
#define MOST_REVOCATIONS (1024 * 1024)
#define MOST_REVOKED 32768

// Whether reading blocks of PEM has ended because there are no more of them, and not because one is damaged: to go on
// without it would be to forget an authority, or who was revoked. The queue was empty before the last one was read.
static bool has_ended(const uint8_t *pem, size_t count) {
    unsigned long code = ERR_peek_last_error();
    if (ERR_GET_LIB(code) != ERR_LIB_PEM || ERR_GET_REASON(code) != PEM_R_NO_START_LINE) return false;
    // OpenSSL passes over a block whose first line is not as it should be: damaged, or with something else on it.
    static const char start[] = "-----BEGIN ", close[] = "-----END ", dashes[] = "-----";
    const size_t dash_count = sizeof dashes - 1;
    const uint8_t *end = pem + count;
    size_t starts = 0, closes = 0;
    for (const uint8_t *at = pem; (at = memmem(at, (size_t)(end - at), start, sizeof start - 1)); at++, starts++) {
        // It takes a byte order mark for nothing.
        const uint8_t *line = at - pem >= 3 && memcmp(at - 3, "\xef\xbb\xbf", 3) == 0 ? at - 3 : at;
        if (line > pem && line[-1] != '\n') return false;
        const uint8_t *line_end = memchr(at, '\n', (size_t)(end - at));
        if (!line_end) line_end = end;
        while (line_end[-1] == '\r' || line_end[-1] == ' ' || line_end[-1] == '\t') line_end--;
        if (memcmp(line_end - dash_count, dashes, dash_count) != 0) return false;
    }
    for (const uint8_t *at = pem; (at = memmem(at, (size_t)(end - at), close, sizeof close - 1)); at++) closes++;
    return starts == closes;
}

// OpenSSL takes the very second for over.
static bool note_end(mg_tls_trust *trust, int64_t end) {
    if (trust->end_count == trust->end_size) {
        size_t size = trust->end_size ? 2 * trust->end_size : 16;
        int64_t *bigger = realloc(trust->ends, size * sizeof *bigger);
        if (!bigger) return false;
        trust->ends = bigger;
        trust->end_size = size;
    }
    size_t place = trust->end_count++;
    while (place > 0 && trust->ends[place - 1] > end) {
        trust->ends[place] = trust->ends[place - 1];
        place--;
    }
    trust->ends[place] = end;
    return true;
}

static const char *add_authorities(mg_tls_trust *trust, const uint8_t *pem, size_t count) {
    if (count > MOST_AUTHORITIES) return "there are too many certificate authorities (256 KiB at most)";
    BIO *bio = BIO_new_mem_buf(pem, (int)count);
    if (!bio) return "no memory";
    const char *problem = NULL;
    X509 *certificate;
    int added = 0;
    ERR_clear_error();
    while (!problem && (certificate = PEM_read_bio_X509(bio, NULL, no_password, NULL))) {
        X509_NAME *name = X509_NAME_dup(X509_get_subject_name(certificate));
        int64_t end = seconds_of(X509_get0_notAfter(certificate));
        if (!X509_STORE_add_cert(trust->store, certificate)) problem = "a certificate authority can't be used";
        else if (!note_end(trust, end) || !name || !sk_X509_NAME_push(trust->names, name)) problem = "no memory";
        else name = NULL;
        if (!added++ || end < trust->facts.first_end) trust->facts.first_end = end;
        X509_NAME_free(name);
        X509_free(certificate);
        if (!problem) ERR_clear_error();
    }
    BIO_free(bio);
    if (problem) return problem;
    if (!has_ended(pem, count))
        return added ? "a certificate authority behind the first can't be read" : "the certificate authority can't be read";
    ERR_clear_error();
    return added ? NULL : "there is no certificate authority in what was given";
}

static const char *add_revocations(mg_tls_trust *trust, const uint8_t *pem, size_t count) {
    if (count > MOST_REVOCATIONS) return "the revocation lists are too long (1 MiB at most)";
    BIO *bio = BIO_new_mem_buf(pem, (int)count);
    if (!bio) return "no memory";
    const char *problem = NULL;
    X509_CRL *list;
    int added = 0;
    int revoked = 0;
    ERR_clear_error();
    while (!problem && (list = PEM_read_bio_X509_CRL(bio, NULL, no_password, NULL))) {
        const ASN1_TIME *next = X509_CRL_get0_nextUpdate(list);
        int64_t end = next ? seconds_of(next) : INT64_MAX;
        int entries = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(list));
        if (entries > 0) revoked += entries;
        if (revoked > MOST_REVOKED) problem = "the revocation lists have too many entries (32,768 at most)";
        else if (!X509_STORE_add_crl(trust->store, list)) problem = "a revocation list can't be used";
        else if (!note_end(trust, end)) problem = "no memory";
        if (!added++ || end < trust->facts.next_update) trust->facts.next_update = end;
        X509_CRL_free(list);
        if (!problem) ERR_clear_error();
    }
    BIO_free(bio);
    if (problem) return problem;
    if (!has_ended(pem, count))
        return added ? "a revocation list behind the first can't be read" : "the revocation list can't be read";
    ERR_clear_error();
    if (!added) return "there is no revocation list in what was given";
    // Of every certificate of a chain, as in nginx: an authority in between that was revoked speaks for nobody.
    X509_STORE_set_flags(trust->store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    return NULL;
}

static bool print_name(const X509_NAME *name, char *into, size_t size);

// How many of one name are looked at: who has more of them is told nothing.
#define MOST_NAMESAKES 16

// Whether a chain that comes to a certificate can end there, or go on: of the name there may be several.
static bool leads_on(STACK_OF(X509_OBJECT) *objects, const X509_NAME *name) {
    int first = X509_OBJECT_idx_by_subject(objects, X509_LU_X509, name);
    if (first < 0) return false;
    for (int i = first; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *certificate = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        if (!certificate || X509_NAME_cmp(X509_get_subject_name(certificate), name) != 0) return false;
        if (i - first >= MOST_NAMESAKES || X509_self_signed(certificate, 0) == 1 ||
            X509_OBJECT_idx_by_subject(objects, X509_LU_X509, X509_get_issuer_name(certificate)) >= 0)
            return true;
    }
    return false;
}

// Whether there is a list of an authority: of its name, and if both say of which key they are, of its key.
static bool has_list(STACK_OF(X509_OBJECT) *objects, X509 *authority) {
    const X509_NAME *name = X509_get_subject_name(authority);
    int first = X509_OBJECT_idx_by_subject(objects, X509_LU_CRL, name);
    if (first < 0) return false;
    for (int i = first; i < sk_X509_OBJECT_num(objects); i++) {
        X509_CRL *list = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));
        if (!list || X509_NAME_cmp(X509_CRL_get_issuer(list), name) != 0) return false;
        AUTHORITY_KEYID *key = X509_CRL_get_ext_d2i(list, NID_authority_key_identifier, NULL, NULL);
        bool is_its = !key || X509_check_akid(authority, key) == X509_V_OK;
        AUTHORITY_KEYID_free(key);
        if (is_its || i - first >= MOST_NAMESAKES) return true;
    }
    return false;
}

static void note_gap(mg_tls_trust *trust, mg_tls_gap_kind kind, const X509_NAME *name) {
    char *first = trust->gaps[kind];
    trust->facts.gaps[kind]++;
    if (!first[0] && !print_name(name, first, MG_TLS_GAP_SIZE)) first[0] = 0;
}

// What an operator has most likely forgotten.
static void find_gaps(mg_tls_trust *trust, bool has_lists) {
    STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(trust->store);
    // A look-up would do it in the middle of the loop.
    sk_X509_OBJECT_sort(objects);
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *certificate = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        // Who has signed itself stands for itself at least.
        if (!certificate || (!X509_check_ca(certificate) && X509_self_signed(certificate, 0) != 1)) continue;
        const X509_NAME *name = X509_get_subject_name(certificate);
        trust->facts.has_authority = true;
        if (!leads_on(objects, name)) note_gap(trust, MG_TLS_GAP_ROOTLESS, name);
        if (has_lists && !has_list(objects, certificate))
            note_gap(trust, MG_TLS_GAP_UNLISTED, name);
    }
}

mg_tls_trust *mg_tls_trust_new(const uint8_t *authorities, size_t authorities_count, const uint8_t *revocations,
                               size_t revocations_count, bool use_system_authorities, char *error, size_t error_size) {
    ERR_clear_error();
    mg_tls_trust *trust = calloc(1, sizeof *trust);
    const char *problem = NULL;
    if (trust) {
        trust->references = 1;
        trust->store = X509_STORE_new();
        trust->names = sk_X509_NAME_new_null();
    }
    if (!trust || !trust->store || !trust->names) problem = "no memory";
    if (!problem && authorities_count) problem = add_authorities(trust, authorities, authorities_count);
    if (!problem && revocations_count) problem = add_revocations(trust, revocations, revocations_count);
    if (problem) {
        say(error, error_size, problem);
        mg_tls_trust_release(trust);
        return NULL;
    }
    find_gaps(trust, revocations_count > 0);
    if (use_system_authorities) X509_STORE_set_default_paths(trust->store);
    ERR_clear_error();
    return trust;
}

void mg_tls_trust_release(mg_tls_trust *trust) {
    if (!trust || atomic_fetch_sub(&trust->references, 1) != 1) return;
    X509_STORE_free(trust->store);
    sk_X509_NAME_pop_free(trust->names, X509_NAME_free);
    free(trust->ends);
    free(trust);
}

mg_tls_trust_facts mg_tls_trust_facts_of(const mg_tls_trust *trust) { return trust->facts; }

const char *mg_tls_trust_gap(const mg_tls_trust *trust, mg_tls_gap_kind kind) { return trust->gaps[kind]; }

size_t mg_tls_trust_ended(const mg_tls_trust *trust, int64_t now) {
    size_t low = 0, high = trust->end_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trust->ends[middle] <= now) low = middle + 1;
        else high = middle;
    }
    return low;
}

int64_t mg_tls_trust_next_end(const mg_tls_trust *trust, int64_t now) {
    size_t ended = mg_tls_trust_ended(trust, now);
    return ended < trust->end_count ? trust->ends[ended] : INT64_MAX;
}

bool mg_tls_knows_cipher(const char *name, bool is_suite) {
    SSL_CTX *ssl = SSL_CTX_new(TLS_server_method());
    if (!ssl) return false;
    bool known = false;
    if (!is_suite) {
        known = SSL_CTX_set_cipher_list(ssl, name);
    } else if (SSL_CTX_set_ciphersuites(ssl, name)) {
        // A list of nothing that is known is taken as well.
        STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(ssl);
        for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++)
            known = known || strcmp(SSL_CIPHER_get_name(sk_SSL_CIPHER_value(ciphers, i)), name) == 0;
    }
    SSL_CTX_free(ssl);
    ERR_clear_error();
    return known;
}

// OpenSSL 3.0 takes names that are not constant to copy them.
static X509_NAME *copy_name(const X509_NAME *name) { return X509_NAME_dup(name); }

mg_tls_context *mg_tls_context_new(bool accepts, const mg_tls_options *options, char *error, size_t error_size) {
    pthread_once(&net_once, make_net_method);
    if (!net_method) {
        say(error, error_size, "no memory");
        return NULL;
    }
    mg_tls_context *context = calloc(1, sizeof *context);
    SSL_CTX *ssl = SSL_CTX_new(accepts ? TLS_server_method() : TLS_client_method());
    if (!context || !ssl) {
        say(error, error_size, "no memory");
        free(context);
        SSL_CTX_free(ssl);
        return NULL;
    }
    context->ssl = ssl;
    context->references = 1;

    SSL_CTX_set_options(ssl, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_PRIORITIZE_CHACHA | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ssl, 1);
    SSL_CTX_set_msg_callback(ssl, watch);
    const char *problem = NULL;
    if (!SSL_CTX_set_min_proto_version(ssl, options->minimum_version)) problem = "the minimum version can't be used";
    else if (!SSL_CTX_set_max_proto_version(ssl, options->maximum_version)) problem = "the maximum version can't be used";
    else if (!SSL_CTX_set_cipher_list(ssl, options->ciphers ? options->ciphers : DEFAULT_CIPHERS))
        problem = "no cipher of the list can be used";
    else if (!SSL_CTX_set_ciphersuites(ssl, options->suites ? options->suites : DEFAULT_SUITES))
        problem = "no cipher suite of the list can be used";
    if (!problem && options->alpn_count) {
        context->alpn = malloc(options->alpn_count);
        if (!context->alpn) {
            problem = "no memory";
        } else {
            memcpy(context->alpn, options->alpn, options->alpn_count);
            context->alpn_count = options->alpn_count;
            if (accepts) SSL_CTX_set_alpn_select_cb(ssl, choose_alpn, context);
            else if (SSL_CTX_set_alpn_protos(ssl, options->alpn, (unsigned)options->alpn_count))
                problem = "the protocol list is malformed";
        }
    }
    if (!problem && options->verify != MG_TLS_VERIFY_NONE) {
        int mode = SSL_VERIFY_PEER;
        if (accepts && options->verify == MG_TLS_VERIFY_REQUIRED) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
        SSL_CTX_set_verify(ssl, mode, options->verify == MG_TLS_VERIFY_RECORD ? record_only : NULL);
        if (options->verify_depth > 0) SSL_CTX_set_verify_depth(ssl, options->verify_depth);
        if (options->trust) {
            atomic_fetch_add(&options->trust->references, 1);
            context->trust = options->trust;
            // One for all contexts: those of clients are made on the loops.
            SSL_CTX_set1_cert_store(ssl, context->trust->store);
            STACK_OF(X509_NAME) *names =
                accepts ? sk_X509_NAME_deep_copy(context->trust->names, copy_name, X509_NAME_free) : NULL;
            if (accepts && !names) problem = "no memory";
            SSL_CTX_set_client_CA_list(ssl, names);
        }
    }
    if (!problem && accepts) {
        static const unsigned char identity[] = "moongate";
        bool is_named = options->identity_count > 0;
        context->identity_count = is_named ? options->identity_count : sizeof identity - 1;
        if (context->identity_count > sizeof context->identity) {
            context->identity_count = 0;
            problem = "the identity of sessions is too long";
        } else {
            memcpy(context->identity, is_named ? options->identity : identity, context->identity_count);
            SSL_CTX_set_session_id_context(ssl, context->identity, (unsigned)context->identity_count);
        }
        // Tickets hold the state at the client: a cache of ours would be memory for each of them.
        SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
        SSL_CTX_set_num_tickets(ssl, 1);
        SSL_CTX_set_timeout(ssl, SESSION_SECONDS);
        SSL_CTX_set_client_hello_cb(ssl, choose_context, NULL);
        SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl, seal_ticket);
        if (options->tickets) {
            atomic_fetch_add(&options->tickets->references, 1);
            context->tickets = options->tickets;
        } else {
            SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
            SSL_CTX_set_num_tickets(ssl, 0);
        }
    }
    if (!problem && !accepts) {
        // Kept by `keep_session`, an endpoint each: a cache of OpenSSL's would be shared by threads, behind a lock.
        SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ssl, keep_session);
    }
    if (problem) {
        say(error, error_size, problem);
        mg_tls_context_release(context);
        return NULL;
    }
    ERR_clear_error();
    return context;
}

// False: it does not fit.
static bool append_name(char *names, size_t size, size_t *used, const char *name, size_t count) {
    // No host is called so.
    if (!count || memchr(name, 0, count) || memchr(name, '\n', count)) return true;
    if (*used + count + 2 > size) return false;
    if (*used) names[(*used)++] = '\n';
    memcpy(names + *used, name, count);
    *used += count;
    names[*used] = 0;
    return true;
}

// False: the names don't fit.
static bool read_facts(X509 *leaf, STACK_OF(X509) *behind, mg_tls_facts *facts) {
    facts->chain_not_after = INT64_MAX;
    for (int i = 0; i < sk_X509_num(behind); i++) {
        X509 *issuer = sk_X509_value(behind, i);
        int64_t end = seconds_of(X509_get0_notAfter(issuer));
        // Whoever trusts a root has it.
        if (X509_check_issued(issuer, issuer) != X509_V_OK && end < facts->chain_not_after) facts->chain_not_after = end;
    }
    facts->not_before = seconds_of(X509_get0_notBefore(leaf));
    facts->not_after = seconds_of(X509_get0_notAfter(leaf));
    facts->key_kind = EVP_PKEY_get_base_id(X509_get0_pubkey(leaf));
    if (!facts->names_size) return true;
    facts->names[0] = 0;
    size_t used = 0;
    bool fits = true;
    GENERAL_NAMES *list = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);
        if (name->type != GEN_DNS) continue;
        fits = fits && append_name(facts->names, facts->names_size, &used,
                                   (const char *)ASN1_STRING_get0_data(name->d.dNSName),
                                   (size_t)ASN1_STRING_length(name->d.dNSName));
    }
    GENERAL_NAMES_free(list);
    return fits;
}

// A key is used on the loop, where everybody waits for it, and a chain is held for each handshake.
#define MOST_RSA_BITS 4096
#define MOST_PEM (64 * 1024)

// The certificate that the key belongs to, taken out of the list; NULL if there is none.
static X509 *take_leaf(STACK_OF(X509) *list, EVP_PKEY *key) {
    for (int i = 0; i < sk_X509_num(list); i++) {
        bool is_its_own = X509_check_private_key(sk_X509_value(list, i), key) == 1;
        ERR_clear_error();
        if (is_its_own) return sk_X509_delete(list, i);
    }
    return NULL;
}

// Puts each issuer behind what it has issued (RFC 8446 §4.4.2), whatever order they were written in. What belongs to
// none of them stays at the end.
static void sort_chain(X509 *leaf, STACK_OF(X509) *list) {
    X509 *last = leaf;
    for (int place = 0; place < sk_X509_num(list); place++) {
        int found = place;
        while (found < sk_X509_num(list) && X509_check_issued(sk_X509_value(list, found), last) != X509_V_OK) found++;
        if (found == sk_X509_num(list)) return;
        last = sk_X509_value(list, found);
        sk_X509_set(list, found, sk_X509_value(list, place));
        sk_X509_set(list, place, last);
    }
}

// Whether clients may agree on signatures by such a key (RFC 8446 §4.2.3): one that is on any other curve can be read and
// used, and no handshake would ever come about with it. False writes what is wrong.
static bool can_be_negotiated(EVP_PKEY *key, char *error, size_t error_size) {
    static const char taken[] = "P-256, P-384, P-521, Ed25519 and RSA are taken";
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
    case EVP_PKEY_ED25519:
    case EVP_PKEY_ED448: return true;
    case EVP_PKEY_EC: break;
    default: snprintf(error, error_size, "clients do not agree on a key of its kind (%s)", taken); return false;
    }
    char curve[64] = "that has no name";
    EVP_PKEY_get_group_name(key, curve, sizeof curve, NULL);
    switch (OBJ_txt2nid(curve)) {
    case NID_X9_62_prime256v1:
    case NID_secp384r1:
    case NID_secp521r1: return true;
    default: snprintf(error, error_size, "clients do not agree on a key on the curve %s (%s)", curve, taken); return false;
    }
}

bool mg_tls_context_add_certificate(mg_tls_context *context, const uint8_t *chain, size_t chain_count,
                                    const uint8_t *key, size_t key_count, mg_tls_facts *facts, char *error,
                                    size_t error_size) {
    if (chain_count > MOST_PEM || key_count > MOST_PEM) {
        say(error, error_size, "the chain or the key is too long (64 KiB each at most)");
        return false;
    }
    BIO *bio = BIO_new_mem_buf(chain, (int)chain_count);
    X509 *leaf = NULL;
    STACK_OF(X509) *list = sk_X509_new_null();
    EVP_PKEY *private_key = NULL;
    const char *problem = NULL;
    bool is_odd = false;
    X509 *next;
    ERR_clear_error();
    while (bio && list && (next = PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL))) {
        if (!sk_X509_push(list, next)) {
            X509_free(next);
            problem = "no memory";
            break;
        }
        ERR_clear_error();
    }
    if (!problem && (!list || sk_X509_num(list) == 0)) problem = "the certificate can't be read";
    // Without it clients would not find the way to a root.
    if (!problem && !has_ended(chain, chain_count)) problem = "a certificate behind the first can't be read";
    if (!problem) {
        ERR_clear_error();
        BIO *key_bio = BIO_new_mem_buf(key, (int)key_count);
        private_key = key_bio ? PEM_read_bio_PrivateKey(key_bio, NULL, no_password, NULL) : NULL;
        BIO_free(key_bio);
        if (!private_key) problem = "the key can't be read";
        if (!problem && EVP_PKEY_get_base_id(private_key) != EVP_PKEY_EC &&
            EVP_PKEY_get_bits(private_key) > MOST_RSA_BITS)
            problem = "the key is too long to be used for every client (4096 bits at most)";
        if (!problem) {
            leaf = take_leaf(list, private_key);
            if (!leaf) problem = "the key does not belong to the certificate";
        }
        if (!problem) sort_chain(leaf, list);
        if (!problem) is_odd = !can_be_negotiated(private_key, error, error_size);
        if (!problem && !is_odd && SSL_CTX_use_cert_and_key(context->ssl, leaf, private_key, list, 1) != 1)
            problem = "the certificate can't be used";
    }
    if (!problem && !is_odd && facts && !read_facts(leaf, list, facts)) problem = "the certificate has too many names";
    if (problem) say(error, error_size, problem);
    ERR_clear_error();
    BIO_free(bio);
    X509_free(leaf);
    EVP_PKEY_free(private_key);
    sk_X509_pop_free(list, X509_free);
    return !problem && !is_odd;
}

mg_tls_tickets *mg_tls_tickets_new(void) {
    mg_tls_tickets *tickets = calloc(1, sizeof *tickets);
    if (!tickets) return NULL;
    tickets->references = 1;
    pthread_mutex_init(&tickets->lock, NULL);
    return tickets;
}

bool mg_tls_tickets_set(mg_tls_tickets *tickets, const uint8_t *keys, size_t count) {
    if (count > MAX_TICKET_KEYS) return false;
    pthread_mutex_lock(&tickets->lock);
    OPENSSL_cleanse(tickets->keys, sizeof tickets->keys);
    if (count) memcpy(tickets->keys, keys, count * TICKET_KEY_SIZE);
    tickets->count = count;
    pthread_mutex_unlock(&tickets->lock);
    return true;
}

void mg_tls_tickets_release(mg_tls_tickets *tickets) {
    if (!tickets || atomic_fetch_sub(&tickets->references, 1) != 1) return;
    OPENSSL_cleanse(tickets->keys, sizeof tickets->keys);
    pthread_mutex_destroy(&tickets->lock);
    free(tickets);
}

void mg_tls_context_retain(mg_tls_context *context) { atomic_fetch_add(&context->references, 1); }

void mg_tls_context_release(mg_tls_context *context) {
    if (!context || atomic_fetch_sub(&context->references, 1) != 1) return;
    SSL_CTX_free(context->ssl);
    mg_tls_trust_release(context->trust);
    mg_tls_tickets_release(context->tickets);
    free(context->alpn);
    free(context);
}

// MARK: Sessions

static mg_tls_session *make_session(mg_tls_context *context) {
    mg_tls_session *session = calloc(1, sizeof *session);
    SSL *ssl = SSL_new(context->ssl);
    BIO *bio = BIO_new(net_method);
    if (!session || !ssl || !bio || !SSL_set_ex_data(ssl, session_index, session)) {
        free(session);
        SSL_free(ssl);
        BIO_free(bio);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(bio, session);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    session->ssl = ssl;
    session->context = context;
    mg_tls_context_retain(context);
    return session;
}

mg_tls_session *mg_tls_session_accept(mg_tls_context *context, mg_tls_choose choose, void *user) {
    mg_tls_session *session = make_session(context);
    if (!session) return NULL;
    session->choose = choose;
    session->user = user;
    SSL_set_accept_state(session->ssl);
    return session;
}

mg_tls_resumption *mg_tls_resumption_new(void) {
    mg_tls_resumption *resumption = calloc(1, sizeof *resumption);
    if (resumption) resumption->references = 1;
    return resumption;
}

bool mg_tls_resumption_is_filled(const mg_tls_resumption *resumption) { return resumption->session != NULL; }

void mg_tls_resumption_release(mg_tls_resumption *resumption) {
    if (!resumption || atomic_fetch_sub(&resumption->references, 1) != 1) return;
    SSL_SESSION_free(resumption->session);
    free(resumption);
}

static void forget_session(mg_tls_resumption *resumption) {
    if (!resumption) return;
    SSL_SESSION_free(resumption->session);
    resumption->session = NULL;
}

mg_tls_session *mg_tls_session_connect(mg_tls_context *context, const char *name, bool sends_name,
                                       mg_tls_resumption *resumption) {
    mg_tls_session *session = make_session(context);
    if (!session) return NULL;
    SSL_set_connect_state(session->ssl);
    if (name && *name) {
        unsigned char address[sizeof(struct in6_addr)];
        // RFC 6066 §3: an address is no server name; it is looked for among the certificate's addresses.
        bool is_address = inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
        X509_VERIFY_PARAM *parameters = SSL_get0_param(session->ssl);
        // RFC 6125 §6.4.3: a star is a whole label.
        X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
        bool done = is_address ? X509_VERIFY_PARAM_set1_ip_asc(parameters, name) == 1
                               : SSL_set1_host(session->ssl, name) == 1;
        if (done && sends_name && !is_address) done = SSL_set_tlsext_host_name(session->ssl, name) == 1;
        if (!done) {
            mg_tls_session_free(session);
            return NULL;
        }
    }
    if (resumption) {
        atomic_fetch_add(&resumption->references, 1);
        session->resumption = resumption;
        // One that can't be used costs a longer handshake.
        if (resumption->session && !SSL_set_session(session->ssl, resumption->session)) forget_session(resumption);
        ERR_clear_error();
    }
    return session;
}

void mg_tls_session_free(mg_tls_session *session) {
    if (!session) return;
    SSL_free(session->ssl);
    ERR_clear_error();
    mg_tls_context_release(session->context);
    mg_tls_resumption_release(session->resumption);
    free(session->kept);
    free(session->name);
    free(session);
}

void mg_tls_feed(mg_tls_session *session, const uint8_t *bytes, size_t count) {
    session->input = bytes;
    session->input_count = count;
}

void mg_tls_set_time(mg_tls_session *session, int64_t now) {
    session->now = now;
    X509_VERIFY_PARAM_set_time(SSL_get0_param(session->ssl), (time_t)now);
}

size_t mg_tls_unread(const mg_tls_session *session) { return session->input_count; }

void mg_tls_lend_output(mg_tls_session *session, uint8_t *room, size_t count) {
    session->room = room;
    session->room_count = count;
    session->room_used = 0;
}

size_t mg_tls_take_output(mg_tls_session *session) {
    size_t used = session->room_used;
    session->room = NULL;
    session->room_count = 0;
    session->room_used = 0;
    return used;
}

size_t mg_tls_pending_output(const mg_tls_session *session) { return session->kept_count; }

void mg_tls_flush(mg_tls_session *session) {
    size_t n = session->room_count - session->room_used;
    if (n > session->kept_count) n = session->kept_count;
    if (!n) return;
    memcpy(session->room + session->room_used, session->kept, n);
    session->room_used += n;
    session->kept_count -= n;
    if (session->kept_count) {
        memmove(session->kept, session->kept + n, session->kept_count);
    } else {
        // An idle session holds no buffer.
        free(session->kept);
        session->kept = NULL;
        session->kept_size = 0;
    }
}

// SSL_get_error(3) judges by the queue of the thread, in which others may have left something.
static void forget_errors(void) {
    if (ERR_peek_error()) ERR_clear_error();
}

mg_tls_status mg_tls_handshake(mg_tls_session *session) {
    forget_errors();
    mg_tls_status status = status_of(session, SSL_do_handshake(session->ssl));
    if (status == MG_TLS_OK) session->is_open = true;
    // Whatever was wrong, the next one begins anew.
    if (status == MG_TLS_FAILED) forget_session(session->resumption);
    return status;
}

mg_tls_status mg_tls_read(mg_tls_session *session, uint8_t *into, size_t count, size_t *got) {
    *got = 0;
    forget_errors();
    while (*got < count) {
        // Most often one record comes whole and alone: no second call to be told so.
        if (*got && session->input_count == 0 && !SSL_has_pending(session->ssl)) return MG_TLS_WANT;
        size_t n = 0;
        mg_tls_status status = status_of(session, SSL_read_ex(session->ssl, into + *got, count - *got, &n));
        *got += n;
        session->plain += n;
        if (session->error != MG_TLS_ERROR_NONE) return MG_TLS_FAILED;
        if (status != MG_TLS_OK) return status;
    }
    return MG_TLS_OK;
}

mg_tls_status mg_tls_write(mg_tls_session *session, const uint8_t *from, size_t count) {
    forget_errors();
    while (count) {
        size_t done = 0;
        mg_tls_status status = status_of(session, SSL_write_ex(session->ssl, from, count, &done));
        if (status != MG_TLS_OK) return status;
        from += done;
        count -= done;
    }
    return session->error == MG_TLS_ERROR_NONE ? MG_TLS_OK : MG_TLS_FAILED;
}

mg_tls_status mg_tls_close(mg_tls_session *session) {
    if (SSL_in_init(session->ssl) || session->error != MG_TLS_ERROR_NONE) return MG_TLS_OK;
    forget_errors();
    int result = SSL_shutdown(session->ssl);
    // 0: ours is said, the peer's is still to come, and nobody waits for it.
    return result >= 0 ? MG_TLS_OK : status_of(session, result);
}

mg_tls_status mg_tls_update_keys(mg_tls_session *session) {
    forget_errors();
    if (SSL_key_update(session->ssl, SSL_KEY_UPDATE_REQUESTED) != 1) return status_of(session, 0);
    return status_of(session, SSL_do_handshake(session->ssl));
}

mg_tls_error_class mg_tls_error(const mg_tls_session *session) { return session->error; }
uint16_t mg_tls_version(const mg_tls_session *session) { return (uint16_t)SSL_version(session->ssl); }

const char *mg_tls_cipher(const mg_tls_session *session) {
    const char *name = SSL_get_cipher_name(session->ssl);
    return name ? name : "";
}

bool mg_tls_was_resumed(const mg_tls_session *session) { return SSL_session_reused(session->ssl) == 1; }

const uint8_t *mg_tls_alpn(const mg_tls_session *session, size_t *count) {
    const unsigned char *protocol = NULL;
    unsigned length = 0;
    SSL_get0_alpn_selected(session->ssl, &protocol, &length);
    *count = length;
    return protocol;
}

const char *mg_tls_server_name(const mg_tls_session *session) {
    return session->name ? session->name : "";
}

bool mg_tls_peer_certificate(const mg_tls_session *session, char *subject, size_t subject_size, char fingerprint[65],
                             bool *verified) {
    X509 *certificate = SSL_get0_peer_certificate(session->ssl);
    if (!certificate) return false;
    *verified = SSL_get_verify_result(session->ssl) == X509_V_OK;
    if (subject_size) {
        BIO *bio = BIO_new(BIO_s_mem());
        int n = 0;
        if (bio && X509_NAME_print_ex(bio, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0)
            n = BIO_read(bio, subject, (int)subject_size - 1);
        subject[n > 0 ? n : 0] = 0;
        BIO_free(bio);
    }
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    fingerprint[0] = 0;
    if (X509_digest(certificate, EVP_sha256(), digest, &size) && size == 32)
        for (unsigned i = 0; i < 32; i++) snprintf(fingerprint + 2 * i, 3, "%02x", digest[i]);
    ERR_clear_error();
    return true;
}

// False: it does not fit.
static bool print_name(const X509_NAME *name, char *into, size_t size) {
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    bool fits = false;
    if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        long count = BIO_get_mem_data(bio, &text);
        if (count >= 0 && (size_t)count < size) {
            // An empty name has no text at all.
            if (count) memcpy(into, text, (size_t)count);
            into[count] = 0;
            fits = true;
            // The flags escape everything else; if they did not, a line of a head would be at stake.
            for (long i = 0; i < count; i++)
                if (into[i] < 32 || into[i] > 126) into[i] = '?';
        }
    }
    BIO_free(bio);
    return fits;
}

static void list_names(X509 *certificate, char *into, size_t size) {
    size_t used = 0;
    GENERAL_NAMES *list = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(list); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);
        const char *kind = NULL;
        const unsigned char *text = NULL;
        size_t count = 0;
        char address[INET6_ADDRSTRLEN];
        switch (name->type) {
        case GEN_DNS: kind = "DNS:"; break;
        case GEN_URI: kind = "URI:"; break;
        case GEN_EMAIL: kind = "email:"; break;
        case GEN_IPADD: kind = "IP:"; break;
        default: continue;
        }
        if (name->type == GEN_IPADD) {
            int family = ASN1_STRING_length(name->d.iPAddress) == 4    ? AF_INET
                         : ASN1_STRING_length(name->d.iPAddress) == 16 ? AF_INET6
                                                                       : AF_UNSPEC;
            if (family == AF_UNSPEC ||
                !inet_ntop(family, ASN1_STRING_get0_data(name->d.iPAddress), address, sizeof address))
                continue;
            text = (const unsigned char *)address;
            count = strlen(address);
        } else {
            text = ASN1_STRING_get0_data(name->d.ia5);
            count = (size_t)ASN1_STRING_length(name->d.ia5);
        }
        bool is_plain = true;
        for (size_t k = 0; k < count; k++) is_plain = is_plain && text[k] > 32 && text[k] < 127;
        size_t prefix = strlen(kind);
        if (!is_plain || used + prefix + count + 2 > size) continue;
        if (used) into[used++] = '\n';
        memcpy(into + used, kind, prefix);
        memcpy(into + used + prefix, text, count);
        used += prefix + count;
        into[used] = 0;
    }
    GENERAL_NAMES_free(list);
}

static void tell_problem(int problem, mg_tls_client *client) {
    client->problem = problem;
    client->problem_text = X509_verify_cert_error_string(problem);
    client->is_untrusted = is_about_trust(problem);
}

mg_tls_client_status mg_tls_client_certificate(const mg_tls_session *session, mg_tls_client *client) {
    X509 *certificate = SSL_get0_peer_certificate(session->ssl);
    if (!certificate) return MG_TLS_CLIENT_NONE;
    tell_problem((int)SSL_get_verify_result(session->ssl), client);
    client->not_after = seconds_of(X509_get0_notAfter(certificate));
    bool fits = print_name(X509_get_subject_name(certificate), client->subject, client->subject_size) &&
                print_name(X509_get_issuer_name(certificate), client->issuer, client->issuer_size);
    client->names[0] = 0;
    list_names(certificate, client->names, client->names_size);
    BIO *bio = BIO_new(BIO_s_mem());
    char *text = NULL;
    long count = bio && PEM_write_bio_X509(bio, certificate) ? BIO_get_mem_data(bio, &text) : -1;
    if (count > 0 && (size_t)count < client->pem_size) {
        memcpy(client->pem, text, (size_t)count);
        client->pem[count] = 0;
    } else {
        fits = false;
    }
    BIO_free(bio);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    client->fingerprint[0] = 0;
    if (X509_digest(certificate, EVP_sha256(), digest, &size) && size == 32)
        for (unsigned i = 0; i < 32; i++) snprintf(client->fingerprint + 2 * i, 3, "%02x", digest[i]);
    ERR_clear_error();
    return fits ? MG_TLS_CLIENT_TOLD : MG_TLS_CLIENT_TOO_LARGE;
}

bool mg_tls_judge_again(mg_tls_session *session, const mg_tls_context *context, int64_t now, mg_tls_client *client) {
    X509 *certificate = SSL_get0_peer_certificate(session->ssl);
    if (!certificate) return false;
    X509_STORE_CTX *store = X509_STORE_CTX_new();
    tell_problem(X509_V_ERR_OUT_OF_MEM, client);
    if (store &&
        X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(context->ssl), certificate,
                            SSL_get_peer_cert_chain(session->ssl)) &&
        X509_STORE_CTX_set_default(store, "ssl_client") &&
        X509_STORE_CTX_set_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx(), session->ssl)) {
        X509_VERIFY_PARAM_set_depth(X509_STORE_CTX_get0_param(store), SSL_CTX_get_verify_depth(context->ssl));
        // As the handshake does: without it no key and no digest is too weak.
        X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(store), SSL_get_security_level(session->ssl));
        X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(store), (time_t)now);
        X509_STORE_CTX_set_verify_cb(store, record_only);
        session->gravest = X509_V_OK;
        int result = X509_verify_cert(store);
        int problem = X509_STORE_CTX_get_error(store);
        if (result <= 0 && problem == X509_V_OK) problem = X509_V_ERR_UNSPECIFIED;
        tell_problem(session->gravest != X509_V_OK ? session->gravest : problem, client);
    }
    X509_STORE_CTX_free(store);
    ERR_clear_error();
    return true;
}

bool mg_tls_digest(const uint8_t *bytes, size_t count, uint8_t digest[32]) {
    unsigned size = 0;
    bool done = EVP_Digest(bytes, count, digest, &size, EVP_sha256(), NULL) == 1 && size == 32;
    ERR_clear_error();
    return done;
}

// MARK: Certificates of our own

static bool write_out(BIO *bio, char *into, size_t *size) {
    char *text = NULL;
    long count = BIO_get_mem_data(bio, &text);
    if (count <= 0 || (size_t)count > *size) return false;
    memcpy(into, text, (size_t)count);
    *size = (size_t)count;
    return true;
}

bool mg_tls_self_sign(const char *name, int days, char *chain, size_t *chain_size, char *key, size_t *key_size) {
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    BIO *key_bio = BIO_new(BIO_s_mem());
    char alternative[300];
    snprintf(alternative, sizeof alternative, "DNS:%s", name);
    bool good = false;
    unsigned char serial[16];
    BIGNUM *number = NULL;
    X509_EXTENSION *extension = NULL;
    if (!pair || !certificate || !bio || !key_bio || RAND_bytes(serial, sizeof serial) != 1) goto end;
    serial[0] &= 0x7f;
    number = BN_bin2bn(serial, sizeof serial, NULL);
    if (!number || !BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate))) goto end;
    X509_set_version(certificate, X509_VERSION_3);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
    X509_gmtime_adj(X509_getm_notAfter(certificate), (long)days * 86400);
    if (!X509_set_pubkey(certificate, pair)) goto end;
    X509_NAME *subject = X509_get_subject_name(certificate);
    if (!X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name, -1, -1, 0)) goto end;
    X509_set_issuer_name(certificate, subject);
    extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alternative);
    if (!extension || !X509_add_ext(certificate, extension, -1)) goto end;
    if (!X509_sign(certificate, pair, EVP_sha256())) goto end;
    if (!PEM_write_bio_X509(bio, certificate) ||
        !PEM_write_bio_PrivateKey(key_bio, pair, NULL, NULL, 0, NULL, NULL)) goto end;
    good = write_out(bio, chain, chain_size) && write_out(key_bio, key, key_size);
end:
    X509_EXTENSION_free(extension);
    BN_free(number);
    BIO_free(bio);
    BIO_free(key_bio);
    X509_free(certificate);
    EVP_PKEY_free(pair);
    ERR_clear_error();
    return good;
}

void mg_tls_wipe(void *bytes, size_t count) { OPENSSL_cleanse(bytes, count); }
