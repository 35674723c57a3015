// The table library, written anew because a table's length and content can be functions of the script (__len, __index):
// stock loops over them cannot be stopped. Every loop here looks at the clock.
#include "internal.h"

#include <limits.h>

enum { MG_READ = 1, MG_WRITE = 2, MG_LENGTH = 4 };

static bool mg_has(lua_State *L, const char *event) {
    lua_pushstring(L, event);
    bool there = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 1);
    return there;
}

// A table, or something that behaves as one.
static void mg_check_table(lua_State *L, int index, int needs) {
    if (lua_type(L, index) == LUA_TTABLE) return;
    if (lua_getmetatable(L, index)) {
        bool good = (!(needs & MG_READ) || mg_has(L, "__index")) && (!(needs & MG_WRITE) || mg_has(L, "__newindex")) &&
                    (!(needs & MG_LENGTH) || mg_has(L, "__len"));
        lua_pop(L, 1);
        if (good) return;
    }
    luaL_checktype(L, index, LUA_TTABLE);
}

static lua_Integer mg_length(lua_State *L, int index, int needs) {
    mg_check_table(L, index, needs | MG_LENGTH);
    return luaL_len(L, index);
}

static int mg_tab_insert(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_Integer next = (lua_Integer)((lua_Unsigned)mg_length(L, 1, MG_READ | MG_WRITE) + 1);
    lua_Integer position;
    switch (lua_gettop(L)) {
    case 2:
        position = next;
        break;
    case 3:
        position = luaL_checkinteger(L, 2);
        luaL_argcheck(L, (lua_Unsigned)position - 1u < (lua_Unsigned)next, 2, "position out of bounds");
        for (lua_Integer i = next; i > position; i--) {
            lua_geti(L, 1, i - 1);
            lua_seti(L, 1, i);
            mg_charge(L, vm, 8);
        }
        break;
    default:
        return luaL_error(L, "wrong number of arguments to 'insert'");
    }
    lua_seti(L, 1, position);
    return 0;
}

static int mg_tab_remove(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_Integer size = mg_length(L, 1, MG_READ | MG_WRITE);
    lua_Integer position = luaL_optinteger(L, 2, size);
    if (position != size) {
        luaL_argcheck(L, (lua_Unsigned)position - 1u <= (lua_Unsigned)size, 2, "position out of bounds");
    }
    lua_geti(L, 1, position);
    for (; position < size; position++) {
        lua_geti(L, 1, position + 1);
        lua_seti(L, 1, position);
        mg_charge(L, vm, 8);
    }
    lua_pushnil(L);
    lua_seti(L, 1, position);
    return 1;
}

static int mg_tab_move(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_Integer from = luaL_checkinteger(L, 2);
    lua_Integer last = luaL_checkinteger(L, 3);
    lua_Integer to = luaL_checkinteger(L, 4);
    int target = !lua_isnoneornil(L, 5) ? 5 : 1;
    mg_check_table(L, 1, MG_READ);
    mg_check_table(L, target, MG_WRITE);
    if (last >= from) {
        luaL_argcheck(L, from > 0 || last < LUA_MAXINTEGER + from, 3, "too many elements to move");
        lua_Integer count = last - from + 1;
        luaL_argcheck(L, to <= LUA_MAXINTEGER - count + 1, 4, "destination wrap around");
        // Where source and target overlap with the target behind, the last element moves first.
        bool forwards = to > last || to <= from || (target != 1 && !lua_compare(L, 1, target, LUA_OPEQ));
        for (lua_Integer i = 0; i < count; i++) {
            lua_Integer offset = forwards ? i : count - 1 - i;
            lua_geti(L, 1, from + offset);
            lua_seti(L, target, to + offset);
            mg_charge(L, vm, 8);
        }
    }
    lua_pushvalue(L, target);
    return 1;
}

static int mg_tab_concat(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_Integer last = mg_length(L, 1, MG_READ);
    size_t separator_length;
    const char *separator = luaL_optlstring(L, 2, "", &separator_length);
    lua_Integer first = luaL_optinteger(L, 3, 1);
    last = luaL_optinteger(L, 4, last);
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    size_t total = 0;
    for (lua_Integer i = first; i <= last; i++) {
        lua_geti(L, 1, i);
        if (!lua_isstring(L, -1)) {
            return luaL_error(L, "invalid value (%s) at index %I in table for 'concat'", luaL_typename(L, -1), (LUAI_UACINT)i);
        }
        size_t length;
        lua_tolstring(L, -1, &length);
        luaL_addvalue(&buffer);
        if (i != last) {
            luaL_addlstring(&buffer, separator, separator_length);
            length += separator_length;
        }
        total += length;
        if (total > vm->string_cap) mg_kill(L, vm, MG_ERROR_MEMORY);
        mg_charge(L, vm, length + 8);
        if (i == LUA_MAXINTEGER) break;
    }
    luaL_pushresult(&buffer);
    return 1;
}

static int mg_tab_pack(lua_State *L) {
    int count = lua_gettop(L);
    lua_createtable(L, count, 1);
    lua_insert(L, 1);
    for (int i = count; i >= 1; i--) lua_seti(L, 1, i);
    lua_pushinteger(L, count);
    lua_setfield(L, 1, "n");
    mg_charge(L, mg_of(L), (size_t)count);
    return 1;
}

static int mg_tab_unpack(lua_State *L) {
    lua_Integer first = luaL_optinteger(L, 2, 1);
    lua_Integer last = lua_isnoneornil(L, 3) ? luaL_len(L, 1) : luaL_checkinteger(L, 3);
    if (first > last) return 0;
    lua_Unsigned count = (lua_Unsigned)last - (lua_Unsigned)first;
    // Thousands of values would make each later instruction that copies them slow.
    if (count >= MG_MAX_RESULTS || !lua_checkstack(L, (int)(count + 1))) {
        return luaL_error(L, "too many results to unpack");
    }
    for (lua_Unsigned i = 0; i <= count; i++) {
        lua_geti(L, 1, (lua_Integer)((lua_Unsigned)first + i));
        mg_charge(L, mg_of(L), 4);
    }
    return (int)count + 1;
}

// --------------------------------------------------------------------------------------------------------------- sort
//
// Merge sort over copies: at most n log n comparisons whatever the comparator does, and the table is written only when
// all is sorted. Stack: 1 table, 2 comparator or nil, 3 and 4 the copies.

static bool mg_before(lua_State *L, int left, int right) {
    if (lua_isnil(L, 2)) return lua_compare(L, left, right, LUA_OPLT);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, left);
    lua_pushvalue(L, right);
    lua_call(L, 2, 1);
    bool before = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return before;
}

static int mg_tab_sort(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_Integer count = mg_length(L, 1, MG_READ | MG_WRITE);
    if (count < 2) return 0;
    luaL_argcheck(L, count < INT_MAX, 1, "array too big");
    if (!lua_isnoneornil(L, 2)) luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    lua_Integer reserve = count < 65536 ? count : 65536;
    lua_createtable(L, (int)reserve, 0);
    lua_createtable(L, (int)reserve, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_geti(L, 1, i);
        lua_rawseti(L, 3, i);
        mg_charge(L, vm, 8);
    }
    int source = 3, target = 4;
    for (lua_Integer width = 1; width < count; width *= 2) {
        for (lua_Integer start = 1; start <= count; start += 2 * width) {
            lua_Integer left = start, middle = start + width, right = middle, end = start + 2 * width;
            if (middle > count + 1) middle = count + 1;
            if (right > count + 1) right = count + 1;
            if (end > count + 1) end = count + 1;
            for (lua_Integer at = start; at < end; at++) {
                if (left < middle && right < end) {
                    lua_rawgeti(L, source, left);
                    lua_rawgeti(L, source, right);
                    if (mg_before(L, lua_gettop(L), lua_gettop(L) - 1)) { // right before left
                        lua_rawseti(L, target, at);
                        lua_pop(L, 1);
                        right++;
                    } else {
                        lua_pop(L, 1);
                        lua_rawseti(L, target, at);
                        left++;
                    }
                    mg_charge(L, vm, 8);
                } else {
                    lua_rawgeti(L, source, left < middle ? left++ : right++);
                    lua_rawseti(L, target, at);
                    mg_charge(L, vm, 4);
                }
            }
        }
        int swap = source;
        source = target;
        target = swap;
    }
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, source, i);
        lua_seti(L, 1, i);
        mg_charge(L, vm, 8);
    }
    return 0;
}

void mg_open_table(lua_State *L, mg_vm *vm) {
    (void)vm;
    static const luaL_Reg functions[] = {{"concat", mg_tab_concat}, {"insert", mg_tab_insert}, {"move", mg_tab_move},
                                         {"pack", mg_tab_pack},     {"remove", mg_tab_remove}, {"sort", mg_tab_sort},
                                         {"unpack", mg_tab_unpack}, {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    luaL_newlib(L, functions);
    mg_freeze(L, "table");
    lua_setfield(L, -2, "table");
    lua_pop(L, 1);
}
