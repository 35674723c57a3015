// The distribution's brotli (RFC 7932), bytes in and bytes out. The decoder is here for the tests.
#include <brotli/decode.h>
#include <brotli/encode.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What one call did: what it took and gave, whether it must be called again with more room, whether the stream is lost.
typedef struct mg_brotli_step {
    size_t taken, given;
    bool has_more, failed;
} mg_brotli_step;

// A window of `window` bits: it is most of the memory that an encoder takes. NULL: no memory.
static inline BrotliEncoderState *mg_brotli_new(uint32_t level, uint32_t window) {
    BrotliEncoderState *state = BrotliEncoderCreateInstance(NULL, NULL, NULL);
    if (state == NULL) return NULL;
    if (BrotliEncoderSetParameter(state, BROTLI_PARAM_QUALITY, level) &&
        BrotliEncoderSetParameter(state, BROTLI_PARAM_LGWIN, window))
        return state;
    BrotliEncoderDestroyInstance(state);
    return NULL;
}

static inline mg_brotli_step mg_brotli_write(
    BrotliEncoderState *state, const uint8_t *input, size_t count, uint8_t *output, size_t room,
    BrotliEncoderOperation operation) {
    size_t left = count, free_room = room;
    bool good = BrotliEncoderCompressStream(state, operation, &left, &input, &free_room, &output, NULL);
    mg_brotli_step step = {count - left, room - free_room, false, !good};
    step.has_more = left > 0 || BrotliEncoderHasMoreOutput(state);
    if (operation == BROTLI_OPERATION_FINISH) step.has_more = !BrotliEncoderIsFinished(state);
    return step;
}

static inline mg_brotli_step mg_unbrotli_write(
    BrotliDecoderState *state, const uint8_t *input, size_t count, uint8_t *output, size_t room) {
    size_t left = count, free_room = room;
    BrotliDecoderResult result = BrotliDecoderDecompressStream(state, &left, &input, &free_room, &output, NULL);
    mg_brotli_step step = {count - left, room - free_room, false, result == BROTLI_DECODER_RESULT_ERROR};
    // It asks for input while it still holds output, too.
    step.has_more = result == BROTLI_DECODER_RESULT_NEEDS_MORE_OUTPUT || BrotliDecoderHasMoreOutput(state);
    return step;
}
