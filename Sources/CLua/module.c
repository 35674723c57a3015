// What stands under the global `moongate`: functions of the host, called with their arguments as flat trees, and those of
// C about Lua tables (respond, redirect, json).
#include "internal.h"

#include <stdlib.h>

// ------------------------------------------------------------------------------------------------------ Lua to values

mg_box *mg_to_box(lua_State *L, int index) {
    if (lua_type(L, index) != LUA_TUSERDATA || lua_rawlen(L, index) != sizeof(mg_box)) return NULL;
    return lua_touserdata(L, index);
}

static void mg_add_text(mg_out *out, const char *text, size_t length, bool borrow) {
    if (!borrow) {
        mg_out_bytes(out, text, length);
        return;
    }
    mg_out_nil(out);
    if (out->failed) return;
    mg_value *value = &out->values[out->count - 1];
    value->tag = MG_BYTES;
    value->length = (uint32_t)length;
    value->as.bytes = text;
}

typedef struct mg_sort_key {
    const char *text;
    size_t length;
    lua_Integer number; // when text is NULL
} mg_sort_key;

static int mg_compare_keys(const void *left, const void *right) {
    const mg_sort_key *a = left, *b = right;
    if ((a->text == NULL) != (b->text == NULL)) return a->text == NULL ? -1 : 1;
    if (a->text == NULL) return a->number < b->number ? -1 : a->number > b->number;
    int order = memcmp(a->text, b->text, a->length < b->length ? a->length : b->length);
    if (order != 0) return order;
    return a->length < b->length ? -1 : a->length > b->length;
}

// A table may hold one string a thousand times, so what a copy of it takes has no bound in the memory of the machine.
static void mg_weigh(lua_State *L, mg_vm *vm, mg_out *out, size_t length) {
    out->weight += length;
    if (out->weight > MG_TREE_BYTES) {
        mg_api_error(L, "a table is too large to hand over: its strings have more than %d KiB", MG_TREE_BYTES / 1024);
    }
    mg_charge(L, vm, length);
}

static void mg_marshal_at(lua_State *L, mg_vm *vm, int index, mg_out *out, bool borrow, int depth);

static void mg_marshal_table(lua_State *L, mg_vm *vm, int index, mg_out *out, bool borrow, int depth) {
    if (depth >= MG_TREE_DEPTH) mg_api_error(L, "a table is nested deeper than %d levels, or in itself", MG_TREE_DEPTH);
    luaL_checkstack(L, 6, "too deep");
    int base = lua_gettop(L);
    lua_pushvalue(L, index);
    int table = base + 1;
    bool is_array = false;
    if (lua_getmetatable(L, table)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_ARRAY_META);
        is_array = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        if (!is_array) mg_unwrap(L, table);
    }
    lua_Integer length = (lua_Integer)lua_rawlen(L, table);
    size_t count = 0;
    bool is_list = length > 0 || is_array;
    for (lua_pushnil(L); mg_next(L, vm, table); lua_pop(L, 1)) {
        count++;
        mg_charge(L, vm, 4);
        if (lua_isinteger(L, -2)) {
            lua_Integer key = lua_tointeger(L, -2);
            if (key < 1 || key > length) is_list = false;
        } else {
            if (lua_type(L, -2) != LUA_TSTRING) {
                mg_api_error(L, "a key is a %s; only strings and integers can be handed over", luaL_typename(L, -2));
            }
            is_list = false;
        }
    }
    if (count > MG_TREE_VALUES || out->count > MG_TREE_VALUES) mg_api_error(L, "a table is too large to hand over");
    if (is_list && count == (size_t)length) {
        mg_out_list(out, (uint32_t)length);
        for (lua_Integer i = 1; i <= length; i++) {
            lua_rawgeti(L, table, i);
            mg_marshal_at(L, vm, lua_gettop(L), out, borrow, depth + 1);
            lua_pop(L, 1);
        }
        lua_settop(L, base);
        return;
    }
    mg_out_map(out, (uint32_t)count);
    if (count > 0) {
        mg_sort_key *keys = lua_newuserdatauv(L, count * sizeof(mg_sort_key), 0);
        size_t at = 0;
        for (lua_pushnil(L); mg_next(L, vm, table) && at < count; lua_pop(L, 1)) {
            mg_sort_key *key = &keys[at++];
            if (lua_isinteger(L, -2)) {
                key->text = NULL;
                key->length = 0;
                key->number = lua_tointeger(L, -2);
            } else {
                key->text = lua_tolstring(L, -2, &key->length);
                key->number = 0;
            }
        }
        qsort(keys, at, sizeof(mg_sort_key), mg_compare_keys);
        mg_charge(L, vm, at * 8);
        for (size_t i = 0; i < at; i++) {
            if (keys[i].text == NULL) {
                mg_out_int(out, keys[i].number);
                lua_rawgeti(L, table, keys[i].number);
            } else {
                mg_weigh(L, vm, out, keys[i].length);
                mg_add_text(out, keys[i].text, keys[i].length, borrow);
                lua_pushlstring(L, keys[i].text, keys[i].length);
                lua_rawget(L, table);
            }
            mg_marshal_at(L, vm, lua_gettop(L), out, borrow, depth + 1);
            lua_pop(L, 1);
        }
    }
    lua_settop(L, base);
}

// What of the host is to become JSON: its data as a table, kept where the tree may borrow from it.
static void mg_marshal_object(lua_State *L, mg_vm *vm, int index, mg_out *out, bool borrow, int depth) {
    luaL_checkstack(L, 6, "too deep");
    mg_push_data(L, vm, index);
    if (lua_isnil(L, out->kept)) {
        lua_newtable(L);
        lua_replace(L, out->kept);
    }
    lua_pushvalue(L, -1);
    lua_rawseti(L, out->kept, (lua_Integer)lua_rawlen(L, out->kept) + 1);
    mg_marshal_table(L, vm, lua_gettop(L), out, borrow, depth);
    lua_pop(L, 1);
}

static void mg_marshal_at(lua_State *L, mg_vm *vm, int index, mg_out *out, bool borrow, int depth) {
    if (out->count > MG_TREE_VALUES) mg_api_error(L, "a table is too large to hand over");
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        mg_out_nil(out);
        break;
    case LUA_TBOOLEAN:
        mg_out_bool(out, lua_toboolean(L, index));
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) mg_out_int(out, lua_tointeger(L, index));
        else mg_out_num(out, lua_tonumber(L, index));
        break;
    case LUA_TSTRING: {
        size_t length;
        const char *text = lua_tolstring(L, index, &length);
        if (depth > 0) mg_weigh(L, vm, out, length);
        else mg_charge(L, vm, length);
        mg_add_text(out, text, length, borrow);
        break;
    }
    case LUA_TTABLE:
        mg_marshal_table(L, vm, index, out, borrow, depth);
        break;
    case LUA_TLIGHTUSERDATA:
        if (mg_is_null(L, index)) mg_out_null(out);
        else if (out->kept != 0) mg_marshal_object(L, vm, index, out, borrow, depth);
        else mg_out_function(out);
        break;
    case LUA_TUSERDATA: {
        mg_box *box = mg_to_box(L, index);
        if (box != NULL) mg_out_handle(out, box->class_id, box->handle);
        else mg_out_function(out);
        break;
    }
    default:
        if (out->kept != 0) {
            mg_api_error(L, "a %s has no JSON", lua_isthread(L, index) ? "coroutine" : luaL_typename(L, index));
        }
        mg_out_function(out);
        break;
    }
    if (out->failed) mg_kill(L, vm, MG_ERROR_MEMORY);
}

void mg_marshal(lua_State *L, mg_vm *vm, int index, mg_out *out, bool borrow) {
    mg_marshal_at(L, vm, lua_absindex(L, index), out, borrow, 0);
}

// ------------------------------------------------------------------------------------------------------ values to Lua

static void mg_push_tree_at(lua_State *L, mg_vm *vm, const mg_value *values, size_t count, size_t *at,
                            const char *bytes, const char *frozen, int depth) {
    if (*at >= count) {
        lua_pushnil(L);
        return;
    }
    const mg_value *value = &values[(*at)++];
    switch ((mg_tag)value->tag) {
    case MG_NIL:
    case MG_FUNCTION:
        lua_pushnil(L);
        break;
    case MG_NULL:
        mg_push_handle(L, (uint64_t)MG_KIND_NULL << 56);
        break;
    case MG_BOOL:
        lua_pushboolean(L, value->as.integer != 0);
        break;
    case MG_INT:
        lua_pushinteger(L, value->as.integer);
        break;
    case MG_NUM:
        lua_pushnumber(L, value->as.number);
        break;
    case MG_BYTES:
        lua_pushlstring(L, value->length == 0 ? "" : bytes != NULL ? bytes + value->as.integer : value->as.bytes,
                        value->length);
        break;
    case MG_HANDLE: {
        if (value->length == 0 || value->length > vm->class_count) {
            lua_pushnil(L);
            break;
        }
        mg_box *box = lua_newuserdatauv(L, sizeof(mg_box), 0);
        box->handle = value->as.handle;
        box->class_id = value->length;
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_CLASSES);
        lua_rawgeti(L, -1, value->length);
        lua_setmetatable(L, -3);
        lua_pop(L, 1);
        break;
    }
    case MG_LIST:
    case MG_MAP: {
        if (depth >= MG_TREE_DEPTH) luaL_error(L, "a value is nested too deep");
        luaL_checkstack(L, 8, "too deep");
        bool list = value->tag == MG_LIST;
        uint32_t length = value->length;
        size_t reserve = length < count - *at ? length : count - *at;
        lua_createtable(L, list ? (int)reserve : 0, list ? 0 : (int)reserve);
        for (uint32_t i = 1; i <= length && *at < count; i++) {
            if (list) {
                mg_push_tree_at(L, vm, values, count, at, bytes, frozen, depth + 1);
                lua_rawseti(L, -2, i);
            } else {
                mg_push_tree_at(L, vm, values, count, at, bytes, NULL, depth + 1);
                mg_push_tree_at(L, vm, values, count, at, bytes, frozen, depth + 1);
                if (lua_isnil(L, -2)) lua_pop(L, 2);
                else lua_rawset(L, -3);
            }
        }
        if (frozen != NULL) mg_freeze(L, frozen);
        break;
    }
    }
}

void mg_push_tree(lua_State *L, mg_vm *vm, const mg_value *values, size_t count, size_t *at, const char *bytes,
                  const char *frozen) {
    mg_push_tree_at(L, vm, values, count, at, bytes, frozen, 0);
}

void mg_push_first(lua_State *L, mg_vm *vm, mg_out *out) {
    if (out->failed) mg_kill(L, vm, MG_ERROR_MEMORY);
    if (out->count == 1 && out->values[0].tag == MG_BYTES) {
        lua_pushlstring(L, out->bytes + out->values[0].as.integer, out->values[0].length);
    } else {
        size_t at = 0;
        mg_push_tree(L, vm, out->values, out->count, &at, out->bytes == NULL ? "" : out->bytes, NULL);
    }
    mg_charge_out(L, vm);
}

int mg_push_results(lua_State *L, mg_vm *vm, mg_out *out) {
    if (out->failed) mg_kill(L, vm, MG_ERROR_MEMORY);
    size_t at = 0;
    int results = 0;
    while (at < out->count) {
        if (results >= MG_MAX_RESULTS) luaL_error(L, "too many results");
        luaL_checkstack(L, 4, "too many results");
        mg_push_tree(L, vm, out->values, out->count, &at, out->bytes == NULL ? "" : out->bytes, NULL);
        results++;
    }
    // Last: objects among the results have an owner now, and its finaliser.
    mg_charge_out(L, vm);
    return results;
}

// -------------------------------------------------------------------------------------------- functions of the host

static int mg_call_continue(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    mg_vm *vm = mg_of(L);
    if (vm->resume_error) {
        vm->resume_error = false;
        mg_host_error(L, vm);
    }
    return mg_push_results(L, vm, &vm->out);
}

// The arguments, which borrow from the values on the stack, stay as they are for a second call.
static mg_host_status mg_call_host(lua_State *L, mg_vm *vm, const mg_function *function, int arity) {
    mg_out_clear(&vm->out);
    mg_host_status status = vm->host.call(vm->host_context, vm->run, function->id, vm->arguments.values,
                                          vm->arguments.count, (uint32_t)arity, &vm->out);
    // The function found the budget used up (mg_vm_charge).
    if (vm->killed != MG_ERROR_NONE) mg_kill(L, vm, vm->killed);
    return status;
}

int mg_call_function(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint32_t index = (uint32_t)lua_tointeger(L, lua_upvalueindex(1));
    const mg_function *function = &vm->functions[index];
    if ((vm->phase_bit & function->phases) == 0) mg_need_phase(L, vm, function->phases, function->name);
    if ((function->phases & MG_MAY_SUSPEND) != 0 && (vm->run == NULL || !lua_isyieldable(L))) {
        mg_api_error(L, "%s waits for the host, and can not %s", function->name,
                     vm->run == NULL ? "outside of a request"
                                     : "inside a sort comparator, a gsub callback or a metamethod");
    }
    int arity = lua_gettop(L);
    if (function->class_id != 0) {
        const mg_box *self = arity > 0 ? mg_to_box(L, 1) : NULL;
        if (self == NULL || self->class_id != function->class_id) {
            mg_api_error(L, "call it with a colon: object:%s(…)", function->name);
        }
    }
    mg_out *arguments = &vm->arguments;
    mg_out_clear(arguments);
    for (int i = 1; i <= arity; i++) mg_marshal(L, vm, i, arguments, true);
    mg_charge(L, vm, 32);
    mg_host_status status = mg_call_host(L, vm, function, arity);
    if (status == MG_HOST_CROWDED) {
        // Objects that nothing holds any more are let go of by their finalisers, which the collector runs when it
        // likes: long after the host has no room for more of them.
        lua_gc(L, LUA_GCCOLLECT);
        mg_check(L, vm);
        status = mg_call_host(L, vm, function, arity);
    }
    switch (status) {
    case MG_HOST_OK:
    case MG_HOST_CROWDED:
        return mg_push_results(L, vm, &vm->out);
    case MG_HOST_SUSPEND:
        if ((function->phases & MG_MAY_SUSPEND) == 0) mg_api_error(L, "%s may not wait", function->name);
        vm->yield = MG_YIELD_HOST;
        vm->resume_error = false;
        return lua_yieldk(L, 0, 0, mg_call_continue);
    case MG_HOST_ERROR:
    case MG_HOST_UNAVAILABLE:
        break;
    }
    mg_host_error(L, vm);
}

// The only finaliser that there is. It can not fail, and calls nothing of Lua.
int mg_release_handle(lua_State *L) {
    mg_vm *vm = mg_of(L);
    mg_box *box = mg_to_box(L, 1);
    if (box != NULL && box->class_id != 0) {
        uint32_t class_id = box->class_id;
        box->class_id = 0;
        vm->host.release(vm->host_context, class_id, box->handle);
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------------------- responses

static lua_Integer mg_check_status(lua_State *L, int index) {
    lua_Integer status = luaL_checkinteger(L, index);
    if (status < 200 || status > 599) mg_api_error(L, "a response has a status from 200 to 599, not %s", lua_tostring(L, index));
    return status;
}

static void mg_check_header(lua_State *L, mg_vm *vm, int name, int value) {
    size_t name_length, value_length;
    if (lua_type(L, name) != LUA_TSTRING) mg_api_error(L, "a header name is a %s; it must be a string", luaL_typename(L, name));
    if (!lua_isstring(L, value)) {
        mg_api_error(L, "header '%s' is a %s; a value is a string or a list of them", lua_tostring(L, name),
                     luaL_typename(L, value));
    }
    const char *name_text = lua_tolstring(L, name, &name_length);
    const char *value_text = lua_tolstring(L, value, &value_length);
    mg_out_clear(&vm->out);
    mg_charge(L, vm, 32 + value_length);
    if (vm->host.check_field(vm->host_context, name_text, name_length, value_text, value_length, &vm->out) !=
        MG_HOST_OK) {
        mg_host_error(L, vm);
    }
}

// A new response table on the top; its `headers` table above it.
static void mg_new_response(lua_State *L, lua_Integer status) {
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, status);
    lua_setfield(L, -2, "status");
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_RESPONSE_META);
    lua_setmetatable(L, -2);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "headers");
}

static int mg_respond(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_Integer status = mg_check_status(L, 1);
    lua_settop(L, 3);
    if (!lua_isnil(L, 3)) luaL_checkstring(L, 3);
    mg_new_response(L, status); // 4 response, 5 headers
    if (!lua_isnil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        mg_unwrap(L, 2);
        for (lua_pushnil(L); mg_next(L, vm, 2); lua_settop(L, 6)) { // 6 name, 7 value
            mg_unwrap(L, 7);
            if (lua_istable(L, 7)) {
                if (lua_type(L, 6) == LUA_TSTRING) mg_check_list(L, 7, lua_tostring(L, 6));
                lua_Integer count = (lua_Integer)lua_rawlen(L, 7);
                lua_createtable(L, (int)(count < 64 ? count : 64), 0); // 8: a copy
                for (lua_Integer i = 1; i <= count; i++) {
                    lua_rawgeti(L, 7, i);
                    mg_check_header(L, vm, 6, 9);
                    lua_rawseti(L, 8, i);
                }
                lua_replace(L, 7);
            } else {
                mg_check_header(L, vm, 6, 7);
            }
            lua_pushvalue(L, 6);
            lua_pushvalue(L, 7);
            lua_rawset(L, 5);
        }
        lua_settop(L, 5);
    }
    if (!lua_isnil(L, 3)) {
        lua_pushvalue(L, 3);
        lua_setfield(L, 4, "body");
    }
    lua_settop(L, 4);
    return 1;
}

// Writes what no URI has (RFC 3986 §2), blanks and bytes beyond ASCII, as escapes; the string is at the top.
static void mg_encode_location(lua_State *L, mg_vm *vm) {
    size_t length;
    const char *url = lua_tolstring(L, -1, &length);
    mg_charge(L, vm, length);
    size_t at = 0;
    while (at < length && url[at] != ' ' && (unsigned char)url[at] < 0x80) at++;
    if (at == length) return;
    luaL_Buffer buffer;
    luaL_buffinit(L, &buffer);
    luaL_addlstring(&buffer, url, at);
    for (; at < length; at++) {
        unsigned char byte = (unsigned char)url[at];
        if (byte != ' ' && byte < 0x80) {
            luaL_addchar(&buffer, (char)byte);
        } else {
            luaL_addchar(&buffer, '%');
            luaL_addchar(&buffer, "0123456789ABCDEF"[byte >> 4]);
            luaL_addchar(&buffer, "0123456789ABCDEF"[byte & 15]);
        }
    }
    luaL_pushresult(&buffer);
    lua_remove(L, -2);
}

static int mg_redirect(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_Integer status = luaL_checkinteger(L, 1);
    if (status != 301 && status != 302 && status != 303 && status != 307 && status != 308) {
        mg_api_error(L, "a redirect has the status 301, 302, 303, 307 or 308, not %s", lua_tostring(L, 1));
    }
    size_t length;
    const char *url = luaL_checklstring(L, 2, &length);
    lua_settop(L, 3);
    bool keep = false;
    if (!lua_isnil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        mg_unwrap(L, 3);
        for (lua_pushnil(L); mg_next(L, vm, 3); lua_pop(L, 1)) {
            mg_charge(L, vm, 8);
            if (lua_type(L, -2) != LUA_TSTRING || strcmp(lua_tostring(L, -2), "keep_query") != 0) {
                const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : luaL_typename(L, -2);
                mg_api_error(L, "moongate.redirect does not know the option '%s'; there is keep_query", name);
            }
            keep = lua_toboolean(L, -1);
        }
    }
    lua_pushvalue(L, 2); // 4: the location
    if (keep && vm->run != NULL) {
        mg_out_clear(&vm->out);
        if (vm->host.field_get(vm->run, MG_QUERY_STRING, &vm->out)) {
            mg_push_first(L, vm, &vm->out); // 5: the query
            size_t query_length;
            const char *query = lua_tolstring(L, 5, &query_length);
            if (query != NULL && query_length > 0) {
                // Before the fragment, after a query that the target has of its own.
                const char *hash = memchr(url, '#', length);
                size_t before = hash != NULL ? (size_t)(hash - url) : length;
                lua_settop(L, 5);
                luaL_Buffer buffer;
                luaL_buffinit(L, &buffer);
                luaL_addlstring(&buffer, url, before);
                luaL_addchar(&buffer, memchr(url, '?', before) != NULL ? '&' : '?');
                luaL_addlstring(&buffer, query, query_length);
                luaL_addlstring(&buffer, url + before, length - before);
                luaL_pushresult(&buffer);
                lua_replace(L, 4);
            }
        }
    }
    lua_settop(L, 4);
    mg_encode_location(L, vm);
    lua_pushliteral(L, "location"); // 5
    mg_check_header(L, vm, 5, 4);
    mg_new_response(L, status); // 6, 7
    lua_pushvalue(L, 4);
    lua_setfield(L, 7, "location");
    lua_settop(L, 6);
    return 1;
}

// moongate.json(status, value): the table's __call, so the table itself is argument 1.
int mg_json_respond(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_remove(L, 1);
    lua_Integer status = mg_check_status(L, 1);
    luaL_checkany(L, 2);
    lua_settop(L, 2);
    mg_json_push(L, vm, 2);     // 3
    mg_new_response(L, status); // 4, 5
    lua_pushliteral(L, "application/json");
    lua_setfield(L, 5, "content-type");
    lua_pushvalue(L, 3);
    lua_setfield(L, 4, "body");
    lua_settop(L, 4);
    return 1;
}

void mg_open_module(lua_State *L, mg_vm *vm) {
    (void)vm;
    static const int metatables[] = {MG_REF_RESPONSE_META, MG_REF_ARRAY_META};
    static const char *const names[] = {"response", "array"};
    for (int i = 0; i < 2; i++) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, metatables[i]);
        lua_pushboolean(L, 0);
        lua_setfield(L, -2, "__metatable");
        lua_pushstring(L, names[i]);
        lua_setfield(L, -2, "__name");
        lua_pop(L, 1);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MOONGATE);
    lua_pushcfunction(L, mg_respond);
    lua_setfield(L, -2, "respond");
    lua_pushcfunction(L, mg_redirect);
    lua_setfield(L, -2, "redirect");
    static const luaL_Reg json[] = {
        {"encode", mg_json_encode}, {"decode", mg_json_decode}, {"array", mg_json_array}, {NULL, NULL}};
    luaL_newlib(L, json);
    mg_push_handle(L, (uint64_t)MG_KIND_NULL << 56);
    lua_setfield(L, -2, "null");
    mg_freeze(L, "moongate.json");
    lua_getmetatable(L, -1);
    lua_pushcfunction(L, mg_json_respond);
    lua_setfield(L, -2, "__call");
    lua_pop(L, 1);
    lua_setfield(L, -2, "json");
    lua_pushvalue(L, -1);
    mg_freeze(L, "moongate");
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    lua_insert(L, -2);
    lua_setfield(L, -2, "moongate");
    lua_pop(L, 2);
}
