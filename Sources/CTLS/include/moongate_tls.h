// A narrow, sans-IO face on OpenSSL 3: bytes of the network in, bytes of the network out, and plain text between.
//
// OpenSSL's own interface is macros, callbacks and an error queue per thread. All of that stays in this module: every
// function here takes plain pointers and lengths, answers a plain code, and leaves the error queue empty.
#ifndef MOONGATE_TLS_H
#define MOONGATE_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// What an operation on a session came to.
typedef enum {
    MG_TLS_OK = 0,
    /// More bytes of the network are needed.
    MG_TLS_WANT = 1,
    /// The peer has said that it sends no more (close_notify).
    MG_TLS_ENDED = 2,
    /// The session is broken; `mg_tls_error` says why.
    MG_TLS_FAILED = 3,
} mg_tls_status;

/// Why a session failed, in few words: these stand in metrics.
typedef enum {
    MG_TLS_ERROR_NONE = 0,
    MG_TLS_ERROR_PROTOCOL,
    MG_TLS_ERROR_VERSION,
    MG_TLS_ERROR_CIPHER,
    MG_TLS_ERROR_NO_CERTIFICATE,
    MG_TLS_ERROR_BAD_CERTIFICATE,
    MG_TLS_ERROR_UNKNOWN_CA,
    MG_TLS_ERROR_EXPIRED,
    MG_TLS_ERROR_WRONG_NAME,
    MG_TLS_ERROR_ALPN,
    MG_TLS_ERROR_NOT_TLS,
    MG_TLS_ERROR_CUT,
    MG_TLS_ERROR_ALERT,
    MG_TLS_ERROR_MEMORY,
    MG_TLS_ERROR_OTHER,
} mg_tls_error_class;

typedef struct mg_tls_context mg_tls_context;
typedef struct mg_tls_session mg_tls_session;
/// Authorities and revocation lists: read once, and shared by contexts and threads.
typedef struct mg_tls_trust mg_tls_trust;
/// The keys that session tickets are sealed with: one set for all contexts of a process, which may be changed at any
/// time, by any thread.
typedef struct mg_tls_tickets mg_tls_tickets;

/// What one kind of connection to one server needs to be short the next time: the newest session that the server gave.
/// Not to be used by two threads at once.
typedef struct mg_tls_resumption mg_tls_resumption;

typedef enum {
    MG_TLS_VERIFY_NONE = 0,
    MG_TLS_VERIFY_OPTIONAL = 1,
    MG_TLS_VERIFY_REQUIRED = 2,
    /// Asked for and judged, but whoever comes without a good one gets through: what it is worth is to be asked for.
    MG_TLS_VERIFY_RECORD = 3,
} mg_tls_verify;

typedef struct {
    /// 0x0303 (1.2) or 0x0304 (1.3).
    uint16_t minimum_version;
    /// 0: the newest that OpenSSL knows.
    uint16_t maximum_version;
    /// OpenSSL's cipher list for TLS 1.2, NULL for the default of this module.
    const char *ciphers;
    /// Cipher suites for TLS 1.3, NULL for the module's own.
    const char *suites;
    /// Protocols in wire form (a length byte before each), by preference of ours.
    const uint8_t *alpn;
    size_t alpn_count;
    mg_tls_verify verify;
    int verify_depth;
    /// What peers' certificates are judged by; NULL trusts nobody.
    mg_tls_trust *trust;
    /// Accepting: seals tickets. NULL gives none.
    mg_tls_tickets *tickets;
    /// Accepting: a session is resumed only where this is the same, at most 32 bytes (SSL_CTX_set_session_id_context(3)),
    /// and where nothing of `trust` has ended since it began.
    const uint8_t *identity;
    size_t identity_count;
} mg_tls_options;

/// Whether OpenSSL has a cipher, or a group of ciphers, of this name: of TLS 1.3 (`is_suite`) or of the versions before. In
/// a longer list it passes over what it does not know.
bool mg_tls_knows_cipher(const char *name, bool is_suite);

/// What an authority may lack.
typedef enum {
    /// Who has signed it: no chain that comes to it ends.
    MG_TLS_GAP_ROOTLESS,
    /// A revocation list where there are some: what it has signed can't be good.
    MG_TLS_GAP_UNLISTED,
    MG_TLS_GAP_KINDS,
} mg_tls_gap_kind;
#define MG_TLS_GAP_SIZE 256

/// What is known of authorities and lists; 0 where there are none.
typedef struct {
    /// When the first of the authorities ends.
    int64_t first_end;
    /// When the first of the lists is to be replaced; INT64_MAX where they don't say.
    int64_t next_update;
    /// Whether one of the certificates may stand for others, or has signed itself: without, nobody's can be good.
    bool has_authority;
    /// How many authorities lack something, by its kind.
    size_t gaps[MG_TLS_GAP_KINDS];
} mg_tls_trust_facts;

/// Authorities in PEM, at most 256 KiB, and revocation lists in PEM, at most 1 MiB and 32,768 entries; none of either with
/// a count of 0. `use_system_authorities` adds the system's. NULL with a message in `error` (always terminated) where one
/// of them can't be read or used: whoever has one that is damaged has none.
mg_tls_trust *mg_tls_trust_new(const uint8_t *authorities, size_t authorities_count, const uint8_t *revocations,
                               size_t revocations_count, bool use_system_authorities, char *error, size_t error_size);
void mg_tls_trust_release(mg_tls_trust *);
mg_tls_trust_facts mg_tls_trust_facts_of(const mg_tls_trust *);
/// The subject (RFC 2253) of one that lacks something; empty where all are too long, or there is none.
const char *mg_tls_trust_gap(const mg_tls_trust *, mg_tls_gap_kind);
/// How many authorities and lists have ended at a time (seconds since 1970), and when the next does; INT64_MAX: none will.
size_t mg_tls_trust_ended(const mg_tls_trust *, int64_t now);
int64_t mg_tls_trust_next_end(const mg_tls_trust *, int64_t now);

/// A context for accepting or for connecting. NULL with a message in `error` (always terminated) when an option is bad.
mg_tls_context *mg_tls_context_new(bool accepts, const mg_tls_options *options, char *error, size_t error_size);
/// What stands in the first certificate of a chain.
typedef struct {
    /// Seconds since 1970.
    int64_t not_before;
    int64_t not_after;
    /// When the first of those behind it ends that do not sign themselves; INT64_MAX if there is none.
    int64_t chain_not_after;
    /// EVP_PKEY_get_base_id(3).
    int key_kind;
    /// Room for the DNS names, separated by newlines: as long as the chain is room enough.
    char *names;
    size_t names_size;
} mg_tls_facts;

/// Adds a chain (leaf first) and its key, both PEM, in the place of one of the same kind of key. `facts` may be NULL.
bool mg_tls_context_add_certificate(mg_tls_context *, const uint8_t *chain, size_t chain_count, const uint8_t *key,
                                    size_t key_count, mg_tls_facts *facts, char *error, size_t error_size);
void mg_tls_context_retain(mg_tls_context *);
void mg_tls_context_release(mg_tls_context *);

/// Without keys no ticket is given. NULL without memory.
mg_tls_tickets *mg_tls_tickets_new(void);
/// `count` keys of 80 bytes (16 name, 32 AES, 32 HMAC), at most 8; the first seals, all open.
bool mg_tls_tickets_set(mg_tls_tickets *, const uint8_t *keys, size_t count);
void mg_tls_tickets_release(mg_tls_tickets *);

/// Called with the name of the client's SNI (lower case, not terminated; empty if none) to choose a context. Answers a
/// borrowed context, or NULL to refuse the handshake with unrecognized_name.
typedef mg_tls_context *(*mg_tls_choose)(void *user, const char *name, size_t count);

/// A session. `choose` may be NULL; `user` is passed to it and must outlive the handshake.
mg_tls_session *mg_tls_session_accept(mg_tls_context *, mg_tls_choose choose, void *user);
/// A session to a server that should be called `name` (checked against its certificate when `verify` is required), a DNS
/// name or an address. `sends_name` names it by SNI too, if it is no address. `resumption` may be NULL; the session keeps
/// it alive, begins with what it holds and puts into it what the server gives.
mg_tls_session *mg_tls_session_connect(mg_tls_context *, const char *name, bool sends_name,
                                       mg_tls_resumption *resumption);
/// NULL without memory.
mg_tls_resumption *mg_tls_resumption_new(void);
bool mg_tls_resumption_is_filled(const mg_tls_resumption *);
void mg_tls_resumption_release(mg_tls_resumption *);
void mg_tls_session_free(mg_tls_session *);

/// Takes `now` (seconds since 1970) for the time, in the place of the system's: before the handshake.
void mg_tls_set_time(mg_tls_session *, int64_t now);

/// Lends network bytes for the calls that follow, until the next feed. They are read in place.
void mg_tls_feed(mg_tls_session *, const uint8_t *bytes, size_t count);
/// How many of the bytes lent are not read yet.
size_t mg_tls_unread(const mg_tls_session *);
/// Lends room for the network bytes that the calls that follow make. What does not fit is kept inside, and counted.
void mg_tls_lend_output(mg_tls_session *, uint8_t *room, size_t count);
/// How many bytes were written into the room; ends the loan.
size_t mg_tls_take_output(mg_tls_session *);
/// Network bytes kept inside because the room was too small: lend again, and call `mg_tls_flush`.
size_t mg_tls_pending_output(const mg_tls_session *);
void mg_tls_flush(mg_tls_session *);

mg_tls_status mg_tls_handshake(mg_tls_session *);
/// Plain text out of the session, up to `count` bytes; `*got` says how many, whatever is answered. OK: there is no room
/// left, and there may be more; WANT: all that was fed is used up.
mg_tls_status mg_tls_read(mg_tls_session *, uint8_t *into, size_t count, size_t *got);
/// Plain text into the session: all of it is taken.
mg_tls_status mg_tls_write(mg_tls_session *, const uint8_t *from, size_t count);
/// Says that we send no more.
mg_tls_status mg_tls_close(mg_tls_session *);
// Takes new keys, and asks the peer for its own (RFC 8446 §4.6.3).
mg_tls_status mg_tls_update_keys(mg_tls_session *);

mg_tls_error_class mg_tls_error(const mg_tls_session *);

/// What was agreed. Texts live as long as the session.
uint16_t mg_tls_version(const mg_tls_session *);
const char *mg_tls_cipher(const mg_tls_session *);
bool mg_tls_was_resumed(const mg_tls_session *);
const uint8_t *mg_tls_alpn(const mg_tls_session *, size_t *count);
const char *mg_tls_server_name(const mg_tls_session *);

/// The peer's certificate: subject in RFC 2253 form, SHA-256 fingerprint in hex, and whether it was verified. False
/// without one.
bool mg_tls_peer_certificate(const mg_tls_session *, char *subject, size_t subject_size, char fingerprint[65],
                             bool *verified);

/// What stands in a client's certificate, and what it is worth. Before the call the sizes hold the room of the texts;
/// all are terminated.
typedef struct {
    /// RFC 2253, in printable ASCII.
    char *subject;
    size_t subject_size;
    char *issuer;
    size_t issuer_size;
    /// Alternative names with their kind, separated by newlines; what does not fit is left out.
    char *names;
    size_t names_size;
    char *pem;
    size_t pem_size;
    char fingerprint[65];
    /// Seconds since 1970.
    int64_t not_after;
    /// X509_V_ERR_…, 0 where nothing is wrong: the gravest that was found (see `is_untrusted`), not the last.
    int problem;
    /// In OpenSSL's words; lives for ever.
    const char *problem_text;
    /// Nothing is wrong but that no authority stands for it.
    bool is_untrusted;
} mg_tls_client;

typedef enum {
    MG_TLS_CLIENT_NONE = 0,
    MG_TLS_CLIENT_TOLD = 1,
    /// There is one, and it is larger than the room: nothing of it can be relied on.
    MG_TLS_CLIENT_TOO_LARGE = 2,
} mg_tls_client_status;

mg_tls_client_status mg_tls_client_certificate(const mg_tls_session *, mg_tls_client *client);
/// Judges the client's certificate, with the chain that came with it, by the authorities of another context, as it is at
/// `now` (seconds since 1970). False where there is none.
bool mg_tls_judge_again(mg_tls_session *, const mg_tls_context *, int64_t now, mg_tls_client *client);

/// SHA-256.
bool mg_tls_digest(const uint8_t *bytes, size_t count, uint8_t digest[32]);

/// Makes a self-signed ECDSA P-256 certificate for `name`, both as PEM. The sizes hold the room and then the length.
bool mg_tls_self_sign(const char *name, int days, char *chain, size_t *chain_size, char *key, size_t *key_size);

/// Empties the secrets-bearing memory.
void mg_tls_wipe(void *bytes, size_t count);

#endif
