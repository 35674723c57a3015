// The distribution's zlib: the gzip coding (RFC 1952), bytes in and bytes out.
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <zlib.h>

// What one call did: what it took and gave, whether it must be called again with more room, whether the stream is lost.
typedef struct mg_gzip_step {
    size_t taken, given;
    bool has_more, failed;
} mg_gzip_step;

// A window of 32 KiB and the head and tail of gzip (15 + 16). NULL: no memory, or no such level.
static inline z_stream *mg_gzip_new(int level) {
    z_stream *stream = (z_stream *)calloc(1, sizeof(z_stream));
    if (stream == NULL) return NULL;
    if (deflateInit2(stream, level, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK) return stream;
    free(stream);
    return NULL;
}

static inline void mg_gzip_free(z_stream *stream) {
    if (stream == NULL) return;
    deflateEnd(stream);
    free(stream);
}

static inline bool mg_gzip_reset(z_stream *stream) { return deflateReset(stream) == Z_OK; }

// `operation` is Z_NO_FLUSH, Z_SYNC_FLUSH or Z_FINISH.
static inline mg_gzip_step mg_gzip_write(
    z_stream *stream, const uint8_t *input, size_t count, uint8_t *output, size_t room, int operation) {
    uInt lent = count > INT_MAX ? INT_MAX : (uInt)count;
    uInt free_room = room > INT_MAX ? INT_MAX : (uInt)room;
    stream->next_in = (Bytef *)input;
    stream->avail_in = lent;
    stream->next_out = output;
    stream->avail_out = free_room;
    // Not all of it was lent: this call cannot be the last.
    int code = deflate(stream, lent < count ? Z_NO_FLUSH : operation);
    mg_gzip_step step = {lent - stream->avail_in, free_room - stream->avail_out, false, false};
    // Z_BUF_ERROR says that there was nothing to do, and harms nothing.
    step.failed = code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR;
    step.has_more = step.taken < count || stream->avail_out == 0;
    if (operation == Z_FINISH) step.has_more = code != Z_STREAM_END;
    stream->next_in = NULL;
    stream->next_out = NULL;
    stream->avail_in = 0;
    stream->avail_out = 0;
    return step;
}

// The way back, for tests: how much of `input` was used, and what came of it.
static inline z_stream *mg_gunzip_new(void) {
    z_stream *stream = (z_stream *)calloc(1, sizeof(z_stream));
    if (stream == NULL) return NULL;
    if (inflateInit2(stream, 15 + 16) == Z_OK) return stream;
    free(stream);
    return NULL;
}

static inline void mg_gunzip_free(z_stream *stream) {
    if (stream == NULL) return;
    inflateEnd(stream);
    free(stream);
}

static inline mg_gzip_step mg_gunzip_write(
    z_stream *stream, const uint8_t *input, size_t count, uint8_t *output, size_t room) {
    stream->next_in = (Bytef *)input;
    stream->avail_in = (uInt)count;
    stream->next_out = output;
    stream->avail_out = (uInt)room;
    int code = inflate(stream, Z_NO_FLUSH);
    mg_gzip_step step = {count - stream->avail_in, room - stream->avail_out, stream->avail_out == 0, false};
    step.failed = code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR;
    return step;
}
