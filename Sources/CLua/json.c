// JSON (RFC 8259), strict both ways, bounded in size and depth. Objects are written with their keys sorted, so that equal
// tables give equal texts.
#include "internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// ------------------------------------------------------------------------------------------------------------- writing

static void mg_text(lua_State *L, mg_vm *vm, const char *bytes, size_t length) {
    if (length == 0) return;
    if (vm->scratch_used + length > MG_JSON_LIMIT) {
        mg_api_error(L, "the JSON text would be longer than %d bytes", MG_JSON_LIMIT);
    }
    if (vm->scratch_room - vm->scratch_used < length) {
        size_t room = vm->scratch_room == 0 ? 1024 : vm->scratch_room;
        while (room - vm->scratch_used < length) room *= 2;
        char *scratch = realloc(vm->scratch, room);
        if (scratch == NULL) mg_kill(L, vm, MG_ERROR_MEMORY);
        vm->scratch = scratch;
        vm->scratch_room = room;
    }
    memcpy(vm->scratch + vm->scratch_used, bytes, length);
    vm->scratch_used += length;
}

static void mg_quote(lua_State *L, mg_vm *vm, const char *bytes, size_t length) {
    static const char hex[] = "0123456789abcdef";
    mg_text(L, vm, "\"", 1);
    size_t start = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)bytes[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        mg_text(L, vm, bytes + start, i - start);
        start = i + 1;
        char escape[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        switch (c) {
        case '"': mg_text(L, vm, "\\\"", 2); break;
        case '\\': mg_text(L, vm, "\\\\", 2); break;
        case '\n': mg_text(L, vm, "\\n", 2); break;
        case '\r': mg_text(L, vm, "\\r", 2); break;
        case '\t': mg_text(L, vm, "\\t", 2); break;
        case '\b': mg_text(L, vm, "\\b", 2); break;
        case '\f': mg_text(L, vm, "\\f", 2); break;
        default: mg_text(L, vm, escape, 6); break;
        }
    }
    mg_text(L, vm, bytes + start, length - start);
    mg_text(L, vm, "\"", 1);
    mg_charge(L, vm, length);
}

static void mg_number(lua_State *L, mg_vm *vm, double number) {
    if (!isfinite(number)) mg_api_error(L, "JSON has no number for infinity or nan");
    char text[40];
    int length = snprintf(text, sizeof text, "%.14g", number);
    if (strtod(text, NULL) != number) length = snprintf(text, sizeof text, "%.17g", number);
    // A float stays one when it is read back.
    if (strpbrk(text, ".eE") == NULL) length += snprintf(text + length, sizeof text - (size_t)length, ".0");
    mg_text(L, vm, text, (size_t)length);
}

static void mg_write(lua_State *L, mg_vm *vm, const mg_out *tree, size_t *at) {
    const mg_value *value = &tree->values[(*at)++];
    char text[32];
    switch ((mg_tag)value->tag) {
    case MG_NIL:
    case MG_NULL:
        mg_text(L, vm, "null", 4);
        break;
    case MG_BOOL:
        if (value->as.integer) mg_text(L, vm, "true", 4);
        else mg_text(L, vm, "false", 5);
        break;
    case MG_INT:
        mg_text(L, vm, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)value->as.integer));
        break;
    case MG_NUM:
        mg_number(L, vm, value->as.number);
        break;
    case MG_BYTES:
        mg_quote(L, vm, value->as.bytes, value->length);
        break;
    case MG_LIST:
        mg_text(L, vm, "[", 1);
        for (uint32_t i = 0; i < value->length; i++) {
            if (i > 0) mg_text(L, vm, ",", 1);
            mg_write(L, vm, tree, at);
        }
        mg_text(L, vm, "]", 1);
        break;
    case MG_MAP:
        mg_text(L, vm, "{", 1);
        for (uint32_t i = 0; i < value->length; i++) {
            if (i > 0) mg_text(L, vm, ",", 1);
            const mg_value *key = &tree->values[*at];
            if (key->tag == MG_INT) {
                (*at)++;
                mg_text(L, vm, text,
                        (size_t)snprintf(text, sizeof text, "\"%lld\"", (long long)key->as.integer));
            } else {
                mg_write(L, vm, tree, at);
            }
            mg_text(L, vm, ":", 1);
            mg_write(L, vm, tree, at);
        }
        mg_text(L, vm, "}", 1);
        break;
    case MG_HANDLE:
        mg_api_error(L, "a %s has no JSON; encode what is needed of it, or tostring(…)",
                     vm->class_names[value->length]);
    case MG_FUNCTION:
        mg_api_error(L, "an object of the API has no JSON");
    }
    mg_charge(L, vm, 8);
}

void mg_json_push(lua_State *L, mg_vm *vm, int index) {
    mg_out *tree = &vm->arguments;
    mg_out_clear(tree);
    lua_pushnil(L);
    int kept = lua_gettop(L);
    tree->kept = kept;
    mg_marshal(L, vm, index, tree, true);
    vm->scratch_used = 0;
    size_t at = 0;
    mg_write(L, vm, tree, &at);
    lua_pushlstring(L, vm->scratch, vm->scratch_used);
    lua_replace(L, kept);
}

int mg_json_encode(lua_State *L) {
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    mg_json_push(L, mg_of(L), 1);
    return 1;
}

int mg_json_array(lua_State *L) {
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (lua_getmetatable(L, 1)) mg_api_error(L, "a table with a metatable cannot be marked as an array");
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_ARRAY_META);
    lua_setmetatable(L, 1);
    return 1;
}

// ------------------------------------------------------------------------------------------------------------- reading

typedef struct mg_reader {
    lua_State *L;
    mg_vm *vm;
    const char *text;
    size_t length, at;
    const char *problem; // NULL while all is well
    const char *code;
} mg_reader;

static bool mg_refuse(mg_reader *r, const char *code, const char *problem) {
    if (r->problem == NULL) {
        r->problem = problem;
        r->code = code;
    }
    return false;
}

static void mg_space(mg_reader *r) {
    while (r->at < r->length) {
        char c = r->text[r->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') break;
        r->at++;
    }
}

static bool mg_hex4(mg_reader *r, unsigned *unit) {
    if (r->length - r->at < 4) return mg_refuse(r, "syntax", "an escape is cut off");
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        unsigned c = (unsigned char)r->text[r->at++];
        unsigned digit;
        if (c - '0' < 10u) digit = c - '0';
        else if ((c | 0x20) - 'a' < 6u) digit = (c | 0x20) - 'a' + 10;
        else return mg_refuse(r, "syntax", "an escape is not hexadecimal");
        *unit = *unit << 4 | digit;
    }
    return true;
}

static void mg_utf8(lua_State *L, mg_vm *vm, unsigned point) {
    char bytes[4];
    size_t count;
    if (point < 0x80) {
        bytes[0] = (char)point;
        count = 1;
    } else if (point < 0x800) {
        bytes[0] = (char)(0xC0 | point >> 6);
        bytes[1] = (char)(0x80 | (point & 63));
        count = 2;
    } else if (point < 0x10000) {
        bytes[0] = (char)(0xE0 | point >> 12);
        bytes[1] = (char)(0x80 | (point >> 6 & 63));
        bytes[2] = (char)(0x80 | (point & 63));
        count = 3;
    } else {
        bytes[0] = (char)(0xF0 | point >> 18);
        bytes[1] = (char)(0x80 | (point >> 12 & 63));
        bytes[2] = (char)(0x80 | (point >> 6 & 63));
        bytes[3] = (char)(0x80 | (point & 63));
        count = 4;
    }
    mg_text(L, vm, bytes, count);
}

// A string, whose opening quote has been read, is pushed.
static bool mg_read_string(mg_reader *r) {
    lua_State *L = r->L;
    mg_vm *vm = r->vm;
    size_t start = r->at;
    while (r->at < r->length && r->text[r->at] != '"' && r->text[r->at] != '\\' &&
           (unsigned char)r->text[r->at] >= 0x20) {
        r->at++;
    }
    if (r->at < r->length && r->text[r->at] == '"') { // nothing to decode
        lua_pushlstring(L, r->text + start, r->at - start);
        mg_charge(L, vm, r->at - start);
        r->at++;
        return true;
    }
    vm->scratch_used = 0;
    mg_text(L, vm, r->text + start, r->at - start);
    while (r->at < r->length) {
        unsigned char c = (unsigned char)r->text[r->at++];
        if (c == '"') {
            lua_pushlstring(L, vm->scratch == NULL ? "" : vm->scratch, vm->scratch_used);
            mg_charge(L, vm, vm->scratch_used);
            return true;
        }
        if (c < 0x20) return mg_refuse(r, "syntax", "a control character in a string");
        if (c != '\\') {
            size_t from = r->at - 1;
            while (r->at < r->length && r->text[r->at] != '"' && r->text[r->at] != '\\' &&
                   (unsigned char)r->text[r->at] >= 0x20) {
                r->at++;
            }
            mg_text(L, vm, r->text + from, r->at - from);
            continue;
        }
        if (r->at >= r->length) break;
        char escape = r->text[r->at++];
        switch (escape) {
        case '"': case '\\': case '/': mg_text(L, vm, &escape, 1); break;
        case 'b': mg_text(L, vm, "\b", 1); break;
        case 'f': mg_text(L, vm, "\f", 1); break;
        case 'n': mg_text(L, vm, "\n", 1); break;
        case 'r': mg_text(L, vm, "\r", 1); break;
        case 't': mg_text(L, vm, "\t", 1); break;
        case 'u': {
            unsigned unit, low;
            if (!mg_hex4(r, &unit)) return false;
            if (unit >= 0xDC00 && unit < 0xE000) return mg_refuse(r, "syntax", "half of a surrogate pair");
            if (unit >= 0xD800 && unit < 0xDC00) {
                if (r->length - r->at < 6 || r->text[r->at] != '\\' || r->text[r->at + 1] != 'u') {
                    return mg_refuse(r, "syntax", "half of a surrogate pair");
                }
                r->at += 2;
                if (!mg_hex4(r, &low)) return false;
                if (low < 0xDC00 || low > 0xDFFF) return mg_refuse(r, "syntax", "half of a surrogate pair");
                unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
            }
            mg_utf8(L, vm, unit);
            break;
        }
        default:
            return mg_refuse(r, "syntax", "an unknown escape");
        }
    }
    return mg_refuse(r, "syntax", "a string is not closed");
}

static bool mg_is_digit(const mg_reader *r) { return r->at < r->length && (unsigned)r->text[r->at] - '0' < 10u; }

static bool mg_read_number(mg_reader *r) {
    size_t start = r->at;
    bool integer = true;
    if (r->text[r->at] == '-') r->at++;
    if (!mg_is_digit(r)) return mg_refuse(r, "syntax", "a number without a digit");
    if (r->text[r->at] == '0') r->at++;
    else while (mg_is_digit(r)) r->at++;
    if (mg_is_digit(r)) return mg_refuse(r, "syntax", "a number with a leading zero");
    if (r->at < r->length && r->text[r->at] == '.') {
        integer = false;
        r->at++;
        if (!mg_is_digit(r)) return mg_refuse(r, "syntax", "a number without a digit after its point");
        while (mg_is_digit(r)) r->at++;
    }
    if (r->at < r->length && (r->text[r->at] | 0x20) == 'e') {
        integer = false;
        r->at++;
        if (r->at < r->length && (r->text[r->at] == '+' || r->text[r->at] == '-')) r->at++;
        if (!mg_is_digit(r)) return mg_refuse(r, "syntax", "a number without a digit in its exponent");
        while (mg_is_digit(r)) r->at++;
    }
    size_t length = r->at - start;
    if (length > 512) return mg_refuse(r, "syntax", "a number is too long");
    char text[520];
    memcpy(text, r->text + start, length);
    text[length] = '\0';
    if (integer && length <= 20) {
        // Within 64 bits it stays an integer.
        lua_Unsigned magnitude = 0;
        bool negative = text[0] == '-', fits = true;
        for (const char *digit = text + negative; *digit != '\0'; digit++) {
            lua_Unsigned value = (lua_Unsigned)(*digit - '0');
            if (magnitude > (UINT64_MAX - value) / 10) {
                fits = false;
                break;
            }
            magnitude = magnitude * 10 + value;
        }
        if (fits && magnitude <= (lua_Unsigned)INT64_MAX + (negative ? 1u : 0u)) {
            lua_pushinteger(r->L, (lua_Integer)(negative ? 0 - magnitude : magnitude));
            return true;
        }
    }
    double number = strtod(text, NULL);
    if (!isfinite(number)) return mg_refuse(r, "syntax", "a number is too large");
    lua_pushnumber(r->L, number);
    return true;
}

static bool mg_literal(mg_reader *r, const char *word) {
    size_t length = strlen(word);
    if (r->length - r->at < length || memcmp(r->text + r->at, word, length) != 0) {
        return mg_refuse(r, "syntax", "an unknown word");
    }
    r->at += length;
    return true;
}

static bool mg_read_value(mg_reader *r, int depth) {
    lua_State *L = r->L;
    mg_charge(L, r->vm, 8);
    mg_space(r);
    if (r->at >= r->length) return mg_refuse(r, "syntax", "the text ends too early");
    if (depth > MG_TREE_DEPTH) return mg_refuse(r, "too_deep", "nested too deep");
    luaL_checkstack(L, 6, "nested too deep");
    switch (r->text[r->at]) {
    case '"':
        r->at++;
        return mg_read_string(r);
    case 't':
        if (!mg_literal(r, "true")) return false;
        lua_pushboolean(L, 1);
        return true;
    case 'f':
        if (!mg_literal(r, "false")) return false;
        lua_pushboolean(L, 0);
        return true;
    case 'n':
        if (!mg_literal(r, "null")) return false;
        mg_push_handle(L, (uint64_t)MG_KIND_NULL << 56);
        return true;
    case '[': {
        r->at++;
        lua_newtable(L);
        mg_space(r);
        if (r->at < r->length && r->text[r->at] == ']') {
            r->at++;
            lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_ARRAY_META); // an empty array stays one when written
            lua_setmetatable(L, -2);
            return true;
        }
        for (lua_Integer i = 1;; i++) {
            if (!mg_read_value(r, depth + 1)) return false;
            lua_rawseti(L, -2, i);
            mg_space(r);
            if (r->at >= r->length) return mg_refuse(r, "syntax", "an array is not closed");
            char c = r->text[r->at++];
            if (c == ']') return true;
            if (c != ',') return mg_refuse(r, "syntax", "a comma is missing in an array");
        }
    }
    case '{': {
        r->at++;
        lua_newtable(L);
        mg_space(r);
        if (r->at < r->length && r->text[r->at] == '}') {
            r->at++;
            return true;
        }
        for (;;) {
            mg_space(r);
            if (r->at >= r->length || r->text[r->at] != '"') return mg_refuse(r, "syntax", "a key is not a string");
            r->at++;
            if (!mg_read_string(r)) return false;
            mg_space(r);
            if (r->at >= r->length || r->text[r->at] != ':') return mg_refuse(r, "syntax", "a colon is missing");
            r->at++;
            if (!mg_read_value(r, depth + 1)) return false;
            lua_rawset(L, -3);
            mg_space(r);
            if (r->at >= r->length) return mg_refuse(r, "syntax", "an object is not closed");
            char c = r->text[r->at++];
            if (c == '}') return true;
            if (c != ',') return mg_refuse(r, "syntax", "a comma is missing in an object");
        }
    }
    default:
        if (r->text[r->at] == '-' || mg_is_digit(r)) return mg_read_number(r);
        return mg_refuse(r, "syntax", "an unexpected character");
    }
}

// The value; or nil and {code, message}.
int mg_json_decode(lua_State *L) {
    mg_reader r = {.L = L, .vm = mg_of(L)};
    r.text = luaL_checklstring(L, 1, &r.length);
    lua_settop(L, 1);
    bool good = true;
    if (r.length > MG_JSON_LIMIT) {
        good = mg_refuse(&r, "too_large", "the text is too long");
    } else {
        good = mg_read_value(&r, 0);
        if (good) {
            mg_space(&r);
            if (r.at < r.length) good = mg_refuse(&r, "syntax", "something follows the value");
        }
    }
    if (good) return 1;
    lua_settop(L, 1);
    lua_pushnil(L);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, r.code);
    lua_setfield(L, -2, "code");
    lua_pushfstring(L, "%s (at byte %I)", r.problem, (LUAI_UACINT)r.at + 1);
    lua_setfield(L, -2, "message");
    return 2;
}
