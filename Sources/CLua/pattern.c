// Lua patterns, by a matcher of our own: a backtracking machine with an explicit list of choices, so that it can look at
// the clock every so many steps and needs no C stack. The meaning is the reference manual's (§6.4.1); a differential
// test compares it with stock Lua.
#define _GNU_SOURCE // memmem
#include "internal.h"

#include <stdlib.h>

enum { MG_CAPTURES = 32, MG_OPEN = -1, MG_POSITION = -2 };

typedef struct mg_capture {
    size_t start;
    ptrdiff_t length; // or MG_OPEN, MG_POSITION
} mg_capture;

// What can still be tried, or must be undone, when the match fails further on; the latest last.
typedef enum mg_choice_kind {
    MG_SHORTER,     // a greedy repetition can give one character back
    MG_LONGER,      // a lazy repetition can take one more
    MG_WITHOUT,     // an optional character can be left out
    MG_UNDO_OPEN,   // a capture was opened
    MG_UNDO_CLOSE   // a capture was closed
} mg_choice_kind;

typedef struct mg_choice {
    mg_choice_kind kind;
    uint32_t capture;
    size_t at;        // in the subject
    size_t low;       // greedy: the shortest
    size_t item;      // lazy: where the item begins in the pattern
    size_t item_end;  // lazy: and where it ends
    size_t rest;      // in the pattern, what follows
} mg_choice;

typedef struct mg_matcher {
    lua_State *L;
    mg_vm *vm;
    const unsigned char *subject, *pattern;
    size_t subject_length, pattern_length;
    uint32_t level;
    size_t choice_count;
    mg_capture captures[MG_CAPTURES];
} mg_matcher;

// ----------------------------------------------------------------------------------------------------------- classes

enum {
    MG_ALPHA = 1,
    MG_DIGIT = 2,
    MG_LOWER = 4,
    MG_UPPER = 8,
    MG_SPACE = 16,
    MG_CONTROL = 32,
    MG_PUNCT = 64,
    MG_HEX = 128,
    MG_ZERO = 256
};

// The classes of the C locale, whatever the process has set.
static unsigned mg_class_of(unsigned c) {
    unsigned class = 0;
    if (c - '0' < 10u) class |= MG_DIGIT | MG_HEX;
    if (c - 'a' < 26u) class |= MG_ALPHA | MG_LOWER;
    if (c - 'A' < 26u) class |= MG_ALPHA | MG_UPPER;
    if ((c | 0x20) - 'a' < 6u) class |= MG_HEX;
    if (c == ' ' || c - 9u < 5u) class |= MG_SPACE;
    if (c < 32 || c == 127) class |= MG_CONTROL;
    if (c == 0) class |= MG_ZERO;
    if (c > 32 && c < 127 && !(class & (MG_ALPHA | MG_DIGIT))) class |= MG_PUNCT;
    return class;
}

static bool mg_in_class(unsigned c, unsigned letter) {
    unsigned wanted;
    switch (letter | 0x20) {
    case 'a': wanted = MG_ALPHA; break;
    case 'c': wanted = MG_CONTROL; break;
    case 'd': wanted = MG_DIGIT; break;
    case 'g': wanted = MG_ALPHA | MG_DIGIT | MG_PUNCT; break;
    case 'l': wanted = MG_LOWER; break;
    case 'p': wanted = MG_PUNCT; break;
    case 's': wanted = MG_SPACE; break;
    case 'u': wanted = MG_UPPER; break;
    case 'w': wanted = MG_ALPHA | MG_DIGIT; break;
    case 'x': wanted = MG_HEX; break;
    case 'z': wanted = MG_ZERO; break; // not documented since 5.2, still there
    default: return letter == c;
    }
    if ((mg_class_of(letter) & MG_ALPHA) == 0) return letter == c;
    bool in = (mg_class_of(c) & wanted) != 0;
    return (mg_class_of(letter) & MG_UPPER) != 0 ? !in : in;
}

// ------------------------------------------------------------------------------------------------------------- items

// Where the single-character item at `at` ends.
static size_t mg_item_end(mg_matcher *m, size_t at) {
    const unsigned char *pattern = m->pattern;
    size_t end = m->pattern_length;
    unsigned char first = pattern[at++];
    if (first == '%') {
        if (at == end) luaL_error(m->L, "malformed pattern (ends with '%%')");
        return at + 1;
    }
    if (first != '[') return at;
    if (at < end && pattern[at] == '^') at++;
    // The first character of a set stands for itself, even a closing bracket.
    bool begun = false;
    for (;;) {
        if (at >= end) luaL_error(m->L, "malformed pattern (missing ']')");
        unsigned char c = pattern[at];
        if (begun && c == ']') return at + 1;
        begun = true;
        at++;
        if (c == '%' && at < end) at++;
    }
}

// Is the character in the set from `at` ('[') to its closing bracket at `close`?
static bool mg_in_set(const mg_matcher *m, unsigned c, size_t at, size_t close) {
    const unsigned char *pattern = m->pattern;
    bool found = true;
    at++;
    if (pattern[at] == '^') {
        found = false;
        at++;
    }
    while (at < close) {
        unsigned char first = pattern[at];
        if (first == '%') {
            at++;
            if (mg_in_class(c, pattern[at])) return found;
            at++;
        } else if (at + 2 < close && pattern[at + 1] == '-') {
            if (first <= c && c <= pattern[at + 2]) return found;
            at += 3;
        } else {
            if (first == c) return found;
            at++;
        }
    }
    return !found;
}

static inline bool mg_single(mg_matcher *m, size_t s, size_t item, size_t item_end) {
    if (s >= m->subject_length) return false;
    unsigned c = m->subject[s];
    switch (m->pattern[item]) {
    case '.':
        return true;
    case '%':
        return mg_in_class(c, m->pattern[item + 1]);
    case '[':
        return mg_in_set(m, c, item, item_end - 1);
    default:
        return m->pattern[item] == c;
    }
}

static inline void mg_step(mg_matcher *m, size_t work) { mg_charge(m->L, m->vm, work); }

static mg_choice *mg_push_choice(mg_matcher *m, mg_choice_kind kind) {
    mg_vm *vm = m->vm;
    if (m->choice_count == vm->choice_capacity) {
        size_t capacity = vm->choice_capacity == 0 ? 64 : vm->choice_capacity * 2;
        if (capacity > MG_MAX_CHOICES) luaL_error(m->L, "pattern too complex");
        mg_choice *choices = realloc(vm->choices, capacity * sizeof(mg_choice));
        if (choices == NULL) mg_kill(m->L, vm, MG_ERROR_MEMORY);
        vm->choices = choices;
        vm->choice_capacity = capacity;
    }
    mg_choice *choice = &vm->choices[m->choice_count++];
    choice->kind = kind;
    return choice;
}

// ----------------------------------------------------------------------------------------------------------- matching

enum { MG_FAILED_MATCH = -1 };

// Matches the pattern from `p` at `s`; the end of the match, or MG_FAILED_MATCH.
static ptrdiff_t mg_match_here(mg_matcher *m, size_t s, size_t p) {
    const unsigned char *pattern = m->pattern;
    const size_t pattern_length = m->pattern_length;
    m->level = 0;
    m->choice_count = 0;
    for (;;) {
        bool failed = false;
        mg_step(m, 0);
        if (p >= pattern_length) return (ptrdiff_t)s;
        unsigned char c = pattern[p];
        if (c == '(') {
            if (m->level >= MG_CAPTURES) luaL_error(m->L, "too many captures");
            bool position = p + 1 < pattern_length && pattern[p + 1] == ')';
            m->captures[m->level].start = s;
            m->captures[m->level].length = position ? MG_POSITION : MG_OPEN;
            m->level++;
            mg_push_choice(m, MG_UNDO_OPEN);
            p += position ? 2 : 1;
            continue;
        }
        if (c == ')') {
            uint32_t capture = m->level;
            while (capture > 0 && m->captures[capture - 1].length != MG_OPEN) capture--;
            if (capture == 0) luaL_error(m->L, "invalid pattern capture");
            capture--;
            m->captures[capture].length = (ptrdiff_t)(s - m->captures[capture].start);
            mg_push_choice(m, MG_UNDO_CLOSE)->capture = capture;
            p++;
            continue;
        }
        if (c == '$' && p + 1 == pattern_length) {
            if (s == m->subject_length) return (ptrdiff_t)s;
            failed = true;
        } else if (c == '%' && p + 1 < pattern_length && pattern[p + 1] == 'b') {
            if (p + 3 >= pattern_length) luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
            failed = true;
            if (s < m->subject_length && m->subject[s] == pattern[p + 2]) {
                unsigned char open = pattern[p + 2], close = pattern[p + 3];
                size_t depth = 1, at = s + 1;
                for (; at < m->subject_length; at++) {
                    // The closing one first: with equal delimiters the second one ends it.
                    if (m->subject[at] == close) {
                        if (--depth == 0) break;
                    } else if (m->subject[at] == open) {
                        depth++;
                    }
                }
                mg_step(m, at - s);
                if (at < m->subject_length) {
                    s = at + 1;
                    p += 4;
                    failed = false;
                }
            }
            if (!failed) continue;
        } else if (c == '%' && p + 1 < pattern_length && pattern[p + 1] == 'f') {
            p += 2;
            if (p >= pattern_length || pattern[p] != '[') luaL_error(m->L, "missing '[' after '%%f' in pattern");
            size_t end = mg_item_end(m, p);
            mg_step(m, end - p);
            unsigned before = s == 0 ? 0 : m->subject[s - 1];
            unsigned here = s < m->subject_length ? m->subject[s] : 0;
            if (!mg_in_set(m, before, p, end - 1) && mg_in_set(m, here, p, end - 1)) {
                p = end;
                continue;
            }
            failed = true;
        } else if (c == '%' && p + 1 < pattern_length && pattern[p + 1] - '0' < 10u) {
            int number = pattern[p + 1] - '0';
            if (number == 0 || (uint32_t)number > m->level || m->captures[number - 1].length == MG_OPEN) {
                luaL_error(m->L, "invalid capture index %%%d", number);
            }
            ptrdiff_t length = m->captures[number - 1].length;
            failed = true;
            if (length >= 0 && (size_t)length <= m->subject_length - s) {
                mg_step(m, (size_t)length);
                if (memcmp(m->subject + m->captures[number - 1].start, m->subject + s, (size_t)length) == 0) {
                    s += (size_t)length;
                    p += 2;
                    failed = false;
                }
            }
            if (!failed) continue;
        } else {
            size_t end = mg_item_end(m, p);
            size_t weight = (end - p) / 4; // looking a character up in a set takes the longer, the longer the set
            mg_step(m, weight);
            unsigned char suffix = end < pattern_length ? pattern[end] : 0;
            if (suffix == '*' || suffix == '+') {
                size_t at = s;
                while (mg_single(m, at, p, end)) {
                    at++;
                    mg_step(m, weight);
                }
                size_t low = suffix == '+' ? s + 1 : s;
                if (at < low) {
                    failed = true;
                } else {
                    if (at > low) {
                        mg_choice *choice = mg_push_choice(m, MG_SHORTER);
                        choice->at = at;
                        choice->low = low;
                        choice->rest = end + 1;
                    }
                    s = at;
                    p = end + 1;
                    continue;
                }
            } else if (suffix == '-') {
                mg_choice *choice = mg_push_choice(m, MG_LONGER);
                choice->at = s;
                choice->item = p;
                choice->item_end = end;
                choice->rest = end + 1;
                p = end + 1;
                continue;
            } else if (suffix == '?') {
                if (mg_single(m, s, p, end)) {
                    mg_choice *choice = mg_push_choice(m, MG_WITHOUT);
                    choice->at = s;
                    choice->rest = end + 1;
                    s++;
                }
                p = end + 1;
                continue;
            } else if (mg_single(m, s, p, end)) {
                s++;
                p = end;
                continue;
            } else {
                failed = true;
            }
        }
        // Back to the latest choice that has something left.
        while (failed) {
            if (m->choice_count == 0) return MG_FAILED_MATCH;
            mg_choice *choice = &m->vm->choices[m->choice_count - 1];
            mg_step(m, 0);
            switch (choice->kind) {
            case MG_UNDO_OPEN:
                m->level--;
                m->choice_count--;
                break;
            case MG_UNDO_CLOSE:
                m->captures[choice->capture].length = MG_OPEN;
                m->choice_count--;
                break;
            case MG_SHORTER:
                s = --choice->at;
                p = choice->rest;
                if (s == choice->low) m->choice_count--;
                failed = false;
                break;
            case MG_LONGER:
                mg_step(m, (choice->item_end - choice->item) / 4);
                if (mg_single(m, choice->at, choice->item, choice->item_end)) {
                    s = ++choice->at;
                    p = choice->rest;
                    failed = false;
                } else {
                    m->choice_count--;
                }
                break;
            case MG_WITHOUT:
                s = choice->at;
                p = choice->rest;
                m->choice_count--;
                failed = false;
                break;
            }
        }
    }
}

static void mg_begin(mg_matcher *m, lua_State *L, const char *subject, size_t subject_length, const char *pattern,
                     size_t pattern_length) {
    m->L = L;
    m->vm = mg_of(L);
    m->subject = (const unsigned char *)subject;
    m->subject_length = subject_length;
    m->pattern = (const unsigned char *)pattern;
    m->pattern_length = pattern_length;
    m->level = 0;
    m->choice_count = 0;
}

// ----------------------------------------------------------------------------------------------------------- captures

// Pushes a capture; capture 0 of a pattern without any is the whole match.
static void mg_push_capture(mg_matcher *m, uint32_t index, size_t from, size_t to) {
    if (index >= m->level) {
        if (index != 0) luaL_error(m->L, "invalid capture index %%%d", (int)index + 1);
        lua_pushlstring(m->L, (const char *)m->subject + from, to - from);
        return;
    }
    mg_capture capture = m->captures[index];
    if (capture.length == MG_OPEN) luaL_error(m->L, "unfinished capture");
    if (capture.length == MG_POSITION) {
        lua_pushinteger(m->L, (lua_Integer)capture.start + 1);
    } else {
        lua_pushlstring(m->L, (const char *)m->subject + capture.start, (size_t)capture.length);
    }
}

static int mg_push_captures(mg_matcher *m, bool whole, size_t from, size_t to) {
    uint32_t count = m->level == 0 && whole ? 1 : m->level;
    luaL_checkstack(m->L, (int)count, "too many captures");
    for (uint32_t i = 0; i < count; i++) mg_push_capture(m, i, from, to);
    return (int)count;
}

// ------------------------------------------------------------------------------------------------------ find and match

static bool mg_is_plain(const char *pattern, size_t length) {
    for (size_t i = 0; i < length; i++) {
        switch (pattern[i]) {
        case '^': case '$': case '*': case '+': case '?': case '.': case '(': case '[': case '%': case '-':
            return false; // a closing bracket alone stands for itself
        default:
            break;
        }
    }
    return true;
}

// In pieces, so that the clock is looked at.
static const char *mg_search(lua_State *L, mg_vm *vm, const char *text, size_t length, const char *needle,
                             size_t needle_length) {
    const size_t window = 65536;
    while (length >= needle_length) {
        size_t piece = length - needle_length < window ? length : window + needle_length;
        const char *found = memmem(text, piece, needle, needle_length);
        mg_charge(L, vm, found != NULL ? (size_t)(found - text) / 8 : piece / 8);
        if (found != NULL) return found;
        if (piece == length) return NULL;
        text += window + 1;
        length -= window + 1;
    }
    return NULL;
}

static size_t mg_first_position(lua_State *L, int argument, size_t length) {
    lua_Integer position = luaL_optinteger(L, argument, 1);
    if (position > 0) return (size_t)position - 1;
    if (position == 0 || position < -(lua_Integer)length) return 0;
    return length + (size_t)position;
}

static int mg_find_or_match(lua_State *L, bool find) {
    size_t length, pattern_length;
    const char *text = luaL_checklstring(L, 1, &length);
    const char *pattern = luaL_checklstring(L, 2, &pattern_length);
    size_t start = mg_first_position(L, 3, length);
    if (start > length) {
        lua_pushnil(L);
        return 1;
    }
    mg_vm *vm = mg_of(L);
    if (find && (lua_toboolean(L, 4) || mg_is_plain(pattern, pattern_length))) {
        const char *found = pattern_length == 0
                                ? text + start
                                : mg_search(L, vm, text + start, length - start, pattern, pattern_length);
        if (found == NULL) {
            lua_pushnil(L);
            return 1;
        }
        lua_pushinteger(L, (lua_Integer)(found - text) + 1);
        lua_pushinteger(L, (lua_Integer)(found - text) + (lua_Integer)pattern_length);
        return 2;
    }
    bool anchored = pattern_length > 0 && pattern[0] == '^';
    mg_matcher m;
    mg_begin(&m, L, text, length, pattern, pattern_length);
    for (size_t s = start;; s++) {
        ptrdiff_t end = mg_match_here(&m, s, anchored ? 1 : 0);
        if (end != MG_FAILED_MATCH) {
            if (!find) return mg_push_captures(&m, true, s, (size_t)end);
            lua_pushinteger(L, (lua_Integer)s + 1);
            lua_pushinteger(L, (lua_Integer)end);
            return mg_push_captures(&m, false, 0, 0) + 2;
        }
        if (anchored || s >= length) break;
    }
    lua_pushnil(L);
    return 1;
}

int mg_str_find(lua_State *L) { return mg_find_or_match(L, true); }
int mg_str_match(lua_State *L) { return mg_find_or_match(L, false); }

// -------------------------------------------------------------------------------------------------------------- gmatch

// Upvalues: subject, pattern, where to go on, the end of the last match or -1.
static int mg_gmatch_next(lua_State *L) {
    size_t length, pattern_length;
    const char *text = lua_tolstring(L, lua_upvalueindex(1), &length);
    const char *pattern = lua_tolstring(L, lua_upvalueindex(2), &pattern_length);
    size_t s = (size_t)lua_tointeger(L, lua_upvalueindex(3));
    ptrdiff_t last = (ptrdiff_t)lua_tointeger(L, lua_upvalueindex(4));
    mg_matcher m;
    mg_begin(&m, L, text, length, pattern, pattern_length);
    for (; s <= length; s++) {
        ptrdiff_t end = mg_match_here(&m, s, 0);
        if (end != MG_FAILED_MATCH && end != last) {
            lua_pushinteger(L, (lua_Integer)end);
            lua_copy(L, -1, lua_upvalueindex(3));
            lua_replace(L, lua_upvalueindex(4));
            return mg_push_captures(&m, true, s, (size_t)end);
        }
    }
    return 0;
}

int mg_str_gmatch(lua_State *L) {
    size_t length;
    luaL_checklstring(L, 1, &length);
    luaL_checkstring(L, 2);
    size_t start = mg_first_position(L, 3, length);
    lua_settop(L, 2);
    lua_pushinteger(L, (lua_Integer)(start > length ? length + 1 : start));
    lua_pushinteger(L, -1);
    lua_pushcclosure(L, mg_gmatch_next, 4);
    return 1;
}

// ---------------------------------------------------------------------------------------------------------------- gsub

static void mg_add_template(mg_matcher *m, luaL_Buffer *buffer, size_t from, size_t to) {
    size_t length;
    const char *template = lua_tolstring(m->L, 3, &length);
    const char *end = template + length;
    while (template < end) {
        const char *percent = memchr(template, '%', (size_t)(end - template));
        if (percent == NULL) percent = end;
        luaL_addlstring(buffer, template, (size_t)(percent - template));
        if (percent == end) return;
        template = percent + 1;
        unsigned char c = template < end ? (unsigned char)*template : 0;
        template++;
        if (c == '%') {
            luaL_addchar(buffer, '%');
        } else if (c == '0') {
            luaL_addlstring(buffer, (const char *)m->subject + from, to - from);
        } else if (c - '1' < 9u) {
            mg_push_capture(m, (uint32_t)(c - '1'), from, to);
            luaL_tolstring(m->L, -1, NULL);
            lua_remove(m->L, -2);
            luaL_addvalue(buffer);
        } else {
            luaL_error(m->L, "invalid use of '%c' in replacement string", '%');
        }
        mg_step(m, 4);
    }
}

// Adds what takes the place of the match; false when the match stays.
static bool mg_add_replacement(mg_matcher *m, luaL_Buffer *buffer, size_t from, size_t to, int type) {
    lua_State *L = m->L;
    switch (type) {
    case LUA_TFUNCTION: {
        lua_pushvalue(L, 3);
        int count = mg_push_captures(m, true, from, to);
        lua_call(L, count, 1);
        break;
    }
    case LUA_TTABLE:
        mg_push_capture(m, 0, from, to);
        lua_gettable(L, 3);
        break;
    default:
        mg_add_template(m, buffer, from, to);
        return true;
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        luaL_addlstring(buffer, (const char *)m->subject + from, to - from);
        return false;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    size_t added;
    lua_tolstring(L, -1, &added);
    luaL_addvalue(buffer);
    mg_step(m, added);
    return true;
}

int mg_str_gsub(lua_State *L) {
    size_t length, pattern_length;
    const char *text = luaL_checklstring(L, 1, &length);
    const char *pattern = luaL_checklstring(L, 2, &pattern_length);
    int type = lua_type(L, 3);
    luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION || type == LUA_TTABLE, 3,
                     "string/function/table");
    lua_Integer limit = luaL_optinteger(L, 4, (lua_Integer)length + 1);
    bool anchored = pattern_length > 0 && pattern[0] == '^';
    mg_matcher m;
    mg_begin(&m, L, text, length, pattern, pattern_length);
    mg_vm *vm = m.vm;
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    size_t s = 0;
    ptrdiff_t last = -1;
    lua_Integer count = 0;
    bool changed = false;
    while (count < limit) {
        ptrdiff_t end = mg_match_here(&m, s, anchored ? 1 : 0);
        if (end != MG_FAILED_MATCH && end != last) {
            count++;
            if (mg_add_replacement(&m, &buffer, s, (size_t)end, type)) changed = true;
            s = (size_t)end;
            last = end;
        } else if (s < length) {
            luaL_addchar(&buffer, text[s]);
            s++;
        } else {
            break;
        }
        if (luaL_bufflen(&buffer) > vm->string_cap) mg_kill(L, vm, MG_ERROR_MEMORY);
        if (anchored) break;
    }
    if (!changed) {
        lua_pushvalue(L, 1);
    } else {
        luaL_addlstring(&buffer, text + s, length - s);
        luaL_pushresult(&buffer);
        mg_charge(L, vm, length - s);
    }
    lua_pushinteger(L, count);
    return 2;
}
