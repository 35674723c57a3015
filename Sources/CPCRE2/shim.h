// The distribution's PCRE2 for 8-bit code units, and the function that it calls out to while it matches.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct mg_pattern_facts {
    size_t size, machine_code;
    uint32_t options, groups;
} mg_pattern_facts;

static inline mg_pattern_facts mg_pattern_look(const pcre2_code_8 *code) {
    mg_pattern_facts facts = {0, 0, 0, 0};
    pcre2_pattern_info_8(code, PCRE2_INFO_SIZE, &facts.size);
    pcre2_pattern_info_8(code, PCRE2_INFO_JITSIZE, &facts.machine_code);
    pcre2_pattern_info_8(code, PCRE2_INFO_ALLOPTIONS, &facts.options);
    pcre2_pattern_info_8(code, PCRE2_INFO_CAPTURECOUNT, &facts.groups);
    return facts;
}

// What a match may still cost. `look` is asked when `credit` is used up; false from it ends the match.
typedef struct mg_watch {
    bool (*look)(void *context, uint64_t work);
    void *context;
    int64_t credit;
    size_t last;
} mg_watch;

enum { MG_WATCH_CREDIT = 16384 };

// Called before each item of a pattern that was compiled with PCRE2_AUTO_CALLOUT. Between two calls lies one item: at
// most a run over the subject by one character class, which the distance between the two places tells.
static inline int mg_watch_callout(pcre2_callout_block_8 *block, void *data) {
    mg_watch *watch = (mg_watch *)data;
    size_t at = block->current_position;
    watch->credit -= 8 + (int64_t)(at > watch->last ? at - watch->last : watch->last - at);
    watch->last = at;
    if (watch->credit >= 0) return 0;
    uint64_t work = (uint64_t)(MG_WATCH_CREDIT - watch->credit);
    watch->credit = MG_WATCH_CREDIT;
    return watch->look(watch->context, work) ? 0 : PCRE2_ERROR_CALLOUT;
}

// pcre2_match under a match limit, with places to start from up to `last` (PCRE2_UNSET: all), and watched when `look` is
// not NULL.
static inline int mg_match(
    const pcre2_code_8 *code, pcre2_match_data_8 *data, pcre2_match_context_8 *context, const uint8_t *text,
    size_t length, size_t start, size_t last, uint32_t options, uint32_t limit, bool (*look)(void *, uint64_t),
    void *payer) {
    mg_watch watch = {look, payer, MG_WATCH_CREDIT, start};
    pcre2_set_match_limit_8(context, limit);
    pcre2_set_offset_limit_8(context, last);
    pcre2_set_callout_8(context, look != NULL ? mg_watch_callout : NULL, &watch);
    return pcre2_match_8(code, text, length, start, options, data, context);
}
