// The distribution's zstd (RFC 8878), bytes in and bytes out. The decoder is here for the tests.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

// What one call did: what it took and gave, whether it must be called again with more room, whether the stream is lost.
typedef struct mg_zstd_step {
    size_t taken, given;
    bool has_more, failed;
} mg_zstd_step;

static inline bool mg_zstd_set(ZSTD_CCtx *context, ZSTD_cParameter parameter, int value) {
    return !ZSTD_isError(ZSTD_CCtx_setParameter(context, parameter, value));
}

// A window of `window` bits, and tables to match: they are the memory that an encoder takes. NULL: no memory.
static inline ZSTD_CCtx *mg_zstd_new(int level, int window) {
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (context == NULL) return NULL;
    if (mg_zstd_set(context, ZSTD_c_compressionLevel, level) && mg_zstd_set(context, ZSTD_c_windowLog, window) &&
        mg_zstd_set(context, ZSTD_c_hashLog, window - 1) && mg_zstd_set(context, ZSTD_c_chainLog, window - 1))
        return context;
    ZSTD_freeCCtx(context);
    return NULL;
}

static inline bool mg_zstd_reset(ZSTD_CCtx *context) {
    return !ZSTD_isError(ZSTD_CCtx_reset(context, ZSTD_reset_session_only));
}

static inline mg_zstd_step mg_zstd_write(
    ZSTD_CCtx *context, const uint8_t *input, size_t count, uint8_t *output, size_t room, ZSTD_EndDirective operation) {
    ZSTD_inBuffer in = {input, count, 0};
    ZSTD_outBuffer out = {output, room, 0};
    size_t left = ZSTD_compressStream2(context, &out, &in, operation);
    mg_zstd_step step = {in.pos, out.pos, in.pos < count, ZSTD_isError(left)};
    if (operation != ZSTD_e_continue && left != 0) step.has_more = true;
    return step;
}

static inline mg_zstd_step mg_unzstd_write(
    ZSTD_DCtx *context, const uint8_t *input, size_t count, uint8_t *output, size_t room) {
    ZSTD_inBuffer in = {input, count, 0};
    ZSTD_outBuffer out = {output, room, 0};
    size_t left = ZSTD_decompressStream(context, &out, &in);
    mg_zstd_step step = {in.pos, out.pos, out.pos == room, ZSTD_isError(left)};
    return step;
}
