// The string and utf8 libraries: those of stock Lua whose time is bounded by the length of a string, with the clock
// looked at afterwards, and our own versions of the others. Patterns are in pattern.c.
#include "internal.h"

#include <stdio.h>

// A position as Lua counts it, for the start of a range: negative from the end, at least 1.
static size_t mg_start(lua_Integer position, size_t length) {
    if (position > 0) return (size_t)position;
    if (position == 0) return 1;
    if (position < -(lua_Integer)length) return 1;
    return length + (size_t)position + 1;
}

// The same for the end of a range: at most the length, 0 when before the start.
static size_t mg_end(lua_Integer position, size_t length) {
    if (position > (lua_Integer)length) return length;
    if (position >= 0) return (size_t)position;
    if (position < -(lua_Integer)length) return 0;
    return length + (size_t)position + 1;
}

static int mg_str_len(lua_State *L) {
    size_t length;
    luaL_checklstring(L, 1, &length);
    lua_pushinteger(L, (lua_Integer)length);
    return 1;
}

#define MG_BOUNDED(name, field)                   \
    static int name(lua_State *L) {               \
        mg_vm *vm = mg_of(L);                     \
        size_t length;                            \
        luaL_checklstring(L, 1, &length);         \
        int results = vm->field(L);               \
        mg_charge(L, vm, length);                 \
        return results;                           \
    }

MG_BOUNDED(mg_str_upper, stock_upper)
MG_BOUNDED(mg_str_lower, stock_lower)
MG_BOUNDED(mg_str_reverse, stock_reverse)
MG_BOUNDED(mg_str_sub, stock_sub)
MG_BOUNDED(mg_utf8_len, stock_utf8len)
MG_BOUNDED(mg_utf8_offset, stock_offset)

static int mg_str_byte(lua_State *L) {
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    lua_Integer first = luaL_optinteger(L, 2, 1);
    size_t from = mg_start(first, length);
    size_t to = mg_end(luaL_optinteger(L, 3, first), length);
    if (from > to) return 0;
    if (to - from >= MG_MAX_RESULTS) return luaL_error(L, "string slice too long");
    int count = (int)(to - from) + 1;
    luaL_checkstack(L, count, "string slice too long");
    for (int i = 0; i < count; i++) lua_pushinteger(L, (unsigned char)text[from - 1 + (size_t)i]);
    mg_charge(L, mg_of(L), (size_t)count);
    return count;
}

static int mg_str_char(lua_State *L) {
    int count = lua_gettop(L);
    luaL_Buffer buffer;
    char *target = luaL_buffinitsize(L, &buffer, (size_t)count);
    for (int i = 1; i <= count; i++) {
        lua_Unsigned byte = (lua_Unsigned)luaL_checkinteger(L, i);
        luaL_argcheck(L, byte <= 255, i, "value out of range");
        target[i - 1] = (char)(unsigned char)byte;
    }
    luaL_pushresultsize(&buffer, (size_t)count);
    mg_charge(L, mg_of(L), (size_t)count);
    return 1;
}

static int mg_str_rep(lua_State *L) {
    mg_vm *vm = mg_of(L);
    size_t length, separator_length;
    const char *text = luaL_checklstring(L, 1, &length);
    lua_Integer count = luaL_checkinteger(L, 2);
    const char *separator = luaL_optlstring(L, 3, "", &separator_length);
    if (count <= 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    size_t unit = length + separator_length;
    if (unit == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    // Longer than any string of this VM may be: said before the memory is touched.
    if ((size_t)count > vm->string_cap / unit + 1) mg_kill(L, vm, MG_ERROR_MEMORY);
    size_t total = unit * (size_t)count - separator_length;
    luaL_Buffer buffer;
    char *target = luaL_buffinitsize(L, &buffer, total);
    if (separator_length == 0 && length == 1) {
        memset(target, text[0], total);
    } else {
        char *at = target;
        for (lua_Integer i = 0; i < count; i++) {
            memcpy(at, text, length);
            at += length;
            if (i + 1 < count) {
                memcpy(at, separator, separator_length);
                at += separator_length;
            }
        }
    }
    luaL_pushresultsize(&buffer, total);
    mg_charge(L, vm, total);
    return 1;
}

// Stock format does the work once what it must not see is out of its way: %p, and values whose tostring shows an
// address.
static int mg_str_format(lua_State *L) {
    mg_vm *vm = mg_of(L);
    int top = lua_gettop(L);
    size_t length;
    const char *at = luaL_checklstring(L, 1, &length);
    const char *end = at + length;
    int argument = 1;
    while (at < end) {
        if (*at++ != '%') continue;
        if (at < end && *at == '%') {
            at++;
            continue;
        }
        argument++;
        const char *specification = at;
        while (at < end && strchr("-+ #0123456789.", *at) != NULL && *at != '\0') at++;
        if (at - specification > 20) return luaL_error(L, "invalid format string to 'format'");
        if (at >= end) break; // stock format says what is wrong
        if (*at == 'p') return luaL_error(L, "invalid conversion '%%%s' to 'format'", "p");
        if (*at == 's' && argument <= top) {
            int type = lua_type(L, argument);
            if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TNIL && type != LUA_TBOOLEAN) {
                mg_tostring(L, argument, NULL);
                lua_replace(L, argument);
                lua_settop(L, top);
            }
        }
        at++;
    }
    int results = vm->stock_format(L);
    size_t made = 0;
    lua_tolstring(L, -1, &made);
    mg_charge(L, vm, made + length);
    return results;
}

static int mg_packing(lua_State *L, lua_CFunction stock) {
    mg_vm *vm = mg_of(L);
    size_t length;
    luaL_checklstring(L, 1, &length);
    if (length > MG_MAX_RESULTS) return luaL_error(L, "format string too long");
    int results = stock(L);
    size_t made = 0;
    if (results > 0 && lua_type(L, -results) == LUA_TSTRING) lua_tolstring(L, -results, &made);
    mg_charge(L, vm, length + made);
    return results;
}

static int mg_str_pack(lua_State *L) { return mg_packing(L, mg_of(L)->stock_pack); }
static int mg_str_unpack(lua_State *L) { return mg_packing(L, mg_of(L)->stock_unpack); }
static int mg_str_packsize(lua_State *L) { return mg_packing(L, mg_of(L)->stock_packsize); }

static int mg_utf8_codepoint(lua_State *L) {
    mg_vm *vm = mg_of(L);
    size_t length;
    luaL_checklstring(L, 1, &length);
    lua_Integer first = luaL_optinteger(L, 2, 1);
    size_t from = mg_start(first, length);
    size_t to = mg_end(luaL_optinteger(L, 3, first), length);
    if (to >= from && to - from >= MG_MAX_RESULTS) return luaL_error(L, "string slice too long");
    int results = vm->stock_codepoint(L);
    mg_charge(L, vm, (size_t)results);
    return results;
}

static lua_CFunction mg_stock(lua_State *L, const char *name) {
    lua_getfield(L, -1, name);
    lua_CFunction function = lua_tocfunction(L, -1);
    lua_pop(L, 1);
    return function;
}

void mg_open_string(lua_State *L, mg_vm *vm) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    int base = lua_gettop(L);
    lua_pushcfunction(L, luaopen_string);
    lua_call(L, 0, 1);
    vm->stock_format = mg_stock(L, "format");
    vm->stock_upper = mg_stock(L, "upper");
    vm->stock_lower = mg_stock(L, "lower");
    vm->stock_reverse = mg_stock(L, "reverse");
    vm->stock_sub = mg_stock(L, "sub");
    vm->stock_pack = mg_stock(L, "pack");
    vm->stock_unpack = mg_stock(L, "unpack");
    vm->stock_packsize = mg_stock(L, "packsize");
    lua_pop(L, 1);
    static const luaL_Reg functions[] = {
        {"byte", mg_str_byte},     {"char", mg_str_char},     {"find", mg_str_find},       {"format", mg_str_format},
        {"gmatch", mg_str_gmatch}, {"gsub", mg_str_gsub},     {"len", mg_str_len},         {"lower", mg_str_lower},
        {"match", mg_str_match},   {"pack", mg_str_pack},     {"packsize", mg_str_packsize}, {"rep", mg_str_rep},
        {"reverse", mg_str_reverse}, {"sub", mg_str_sub},     {"unpack", mg_str_unpack},   {"upper", mg_str_upper},
        {NULL, NULL}};
    luaL_newlib(L, functions);
    // The metatable of strings was made by luaopen_string (it holds the arithmetic on numerals); its methods are ours.
    lua_pushliteral(L, "");
    lua_getmetatable(L, -1);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 2);
    mg_freeze(L, "string");
    lua_setfield(L, base, "string");

    lua_pushcfunction(L, luaopen_utf8);
    lua_call(L, 0, 1);
    vm->stock_codepoint = mg_stock(L, "codepoint");
    vm->stock_utf8len = mg_stock(L, "len");
    vm->stock_offset = mg_stock(L, "offset");
    lua_pushcfunction(L, mg_utf8_codepoint);
    lua_setfield(L, -2, "codepoint");
    lua_pushcfunction(L, mg_utf8_len);
    lua_setfield(L, -2, "len");
    lua_pushcfunction(L, mg_utf8_offset);
    lua_setfield(L, -2, "offset");
    mg_freeze(L, "utf8");
    lua_setfield(L, base, "utf8");
    lua_settop(L, base - 1);
}
