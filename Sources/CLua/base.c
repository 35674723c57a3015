// The base library and coroutines, as scripts see them: what cannot be bounded or kept pristine is replaced or left out.
//
// Left out: load, loadfile, dofile, collectgarbage, print, and the libraries io, os, debug and package.
#include "internal.h"

#include <limits.h>

// ------------------------------------------------------------------------------------------------- frozen proxies

static int mg_frozen_write(lua_State *L) {
    const char *name = lua_tostring(L, lua_upvalueindex(1));
    mg_api_error(L, "%s is read-only", name != NULL ? name : "this table");
}

static int mg_frozen_next(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    mg_unwrap(L, 1);
    if (mg_next(L, mg_of(L), 1)) return 2;
    lua_pushnil(L);
    return 1;
}

static int mg_frozen_pairs(lua_State *L) {
    lua_pushcfunction(L, mg_frozen_next);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

static int mg_frozen_length(lua_State *L) {
    mg_unwrap(L, 1);
    lua_pushinteger(L, (lua_Integer)lua_rawlen(L, 1));
    return 1;
}

void mg_freeze(lua_State *L, const char *name) {
    luaL_checkstack(L, 6, NULL);
    lua_newtable(L);                        // behind, proxy
    lua_createtable(L, 0, 6);               // behind, proxy, meta
    lua_pushvalue(L, -3);
    lua_rawsetp(L, -2, &mg_frozen_key);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_pushcclosure(L, mg_frozen_write, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, mg_frozen_pairs);
    lua_setfield(L, -2, "__pairs");
    lua_pushcfunction(L, mg_frozen_length);
    lua_setfield(L, -2, "__len");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
}

bool mg_unwrap(lua_State *L, int index) {
    if (lua_type(L, index) != LUA_TTABLE) return false;
    index = lua_absindex(L, index);
    if (!lua_getmetatable(L, index)) return false;
    if (lua_rawgetp(L, -1, &mg_frozen_key) == LUA_TTABLE) {
        lua_replace(L, index);
        lua_pop(L, 1);
        return true;
    }
    lua_pop(L, 2);
    return false;
}

// -------------------------------------------------------------------------------------------------------- tostring

const char *mg_tostring(lua_State *L, int index, size_t *length) {
    index = lua_absindex(L, index);
    if (luaL_callmeta(L, index, "__tostring")) {
        if (!lua_isstring(L, -1)) luaL_error(L, "'__tostring' must return a string");
        return lua_tolstring(L, -1, length);
    }
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) {
            lua_pushfstring(L, "%I", (LUAI_UACINT)lua_tointeger(L, index));
        } else {
            lua_pushfstring(L, "%f", (LUAI_UACNUMBER)lua_tonumber(L, index));
        }
        break;
    case LUA_TSTRING:
        lua_pushvalue(L, index);
        break;
    case LUA_TBOOLEAN:
        lua_pushstring(L, lua_toboolean(L, index) ? "true" : "false");
        break;
    case LUA_TNIL:
        lua_pushliteral(L, "nil");
        break;
    default: {
        // Stock Lua shows the address here, which helps whoever wants to corrupt memory.
        if (luaL_getmetafield(L, index, "__name") == LUA_TSTRING) break;
        lua_pushstring(L, luaL_typename(L, index));
        break;
    }
    }
    return lua_tolstring(L, -1, length);
}

static int mg_base_tostring(lua_State *L) {
    luaL_checkany(L, 1);
    mg_tostring(L, 1, NULL);
    return 1;
}

// ---------------------------------------------------------------------------------------------------------- tables

static bool mg_is_frozen(lua_State *L, int index) {
    if (!lua_getmetatable(L, index)) return false;
    bool frozen = lua_rawgetp(L, -1, &mg_frozen_key) == LUA_TTABLE;
    lua_pop(L, 2);
    return frozen;
}

static int mg_base_setmetatable(lua_State *L) {
    int type = lua_type(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) {
        return luaL_error(L, "cannot change a protected metatable");
    }
    if (type == LUA_TTABLE) {
        // Finalisers run with the hook off. Lua marks an object for one only here, so refusing here is enough.
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL) mg_api_error(L, "__gc is not available");
        lua_pop(L, 1);
        // See mg_forget_modes: a mode that is written later has no effect.
        lua_pushliteral(L, "__mode");
        if (lua_rawget(L, 2) != LUA_TNIL) mg_api_error(L, "weak tables (__mode) are not available");
        lua_pop(L, 1);
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

static int mg_base_rawset(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    luaL_checkany(L, 3);
    if (mg_is_frozen(L, 1)) mg_api_error(L, "this table is read-only");
    lua_settop(L, 3);
    // Globals that this writes end with the run like any other.
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_ENVIRONMENT);
    if (lua_rawequal(L, 1, -1)) mg_of(L)->environment_dirty = true;
    lua_pop(L, 1);
    lua_rawset(L, 1);
    return 1;
}

static int mg_base_rawget(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    lua_settop(L, 2);
    mg_unwrap(L, 1);
    lua_rawget(L, 1);
    return 1;
}

static int mg_base_rawlen(lua_State *L) {
    int type = lua_type(L, 1);
    luaL_argexpected(L, type == LUA_TTABLE || type == LUA_TSTRING, 1, "table or string");
    mg_unwrap(L, 1);
    lua_pushinteger(L, (lua_Integer)lua_rawlen(L, 1));
    return 1;
}

static int mg_pairs_continue(lua_State *L, int status, lua_KContext context) {
    (void)L;
    (void)status;
    (void)context;
    return 3;
}

static int mg_base_pairs(lua_State *L) {
    luaL_checkany(L, 1);
    if (luaL_getmetafield(L, 1, "__pairs") == LUA_TNIL) {
        lua_pushcfunction(L, mg_frozen_next);
        lua_pushvalue(L, 1);
        lua_pushnil(L);
    } else {
        lua_pushvalue(L, 1);
        lua_callk(L, 1, 3, 0, mg_pairs_continue);
    }
    return 3;
}

// ------------------------------------------------------------------------------------------------ protected calls

// As in stock Lua; each level is a step over a call.
static int mg_base_error(lua_State *L) {
    lua_Integer level = luaL_optinteger(L, 2, 1);
    lua_settop(L, 1);
    if (lua_type(L, 1) == LUA_TSTRING && level > 0) {
        if (level > 16) mg_charge(L, mg_of(L), level < MG_CREDIT ? (size_t)level : (size_t)MG_CREDIT);
        luaL_where(L, level < INT_MAX ? (int)level : INT_MAX);
        lua_pushvalue(L, 1);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

// What ended the run for good is not shown to the script.
static int mg_pcall_finish(lua_State *L, int status, lua_KContext extra) {
    if (status != LUA_OK && status != LUA_YIELD) {
        mg_undeafen(L);
        mg_vm *vm = mg_of(L);
        if (mg_fatal(L, vm, status, -1)) mg_rethrow(L, vm);
        lua_pushboolean(L, 0);
        lua_pushvalue(L, -2);
        return 2;
    }
    return lua_gettop(L) - (int)extra;
}

static int mg_base_pcall(lua_State *L) {
    luaL_checkany(L, 1);
    lua_pushboolean(L, 1);
    lua_insert(L, 1);
    int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 0, 0, mg_pcall_finish);
    return mg_pcall_finish(L, status, 0);
}

static int mg_handler(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_settop(L, 1);
    if (mg_fatal(L, vm, LUA_ERRRUN, 1)) return 1;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

static int mg_base_xpcall(lua_State *L) {
    int count = lua_gettop(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, mg_handler, 1);
    lua_replace(L, 2);
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2); // function, handler, true, function, arguments
    int status = lua_pcallk(L, count - 2, LUA_MULTRET, 2, 2, mg_pcall_finish);
    return mg_pcall_finish(L, status, 2);
}

// ---------------------------------------------------------------------------------------------------------- require

static int mg_base_require(lua_State *L) {
    luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_LOADED); // 2
    lua_pushvalue(L, 1);
    if (lua_rawget(L, 2) != LUA_TNIL) {
        if (lua_islightuserdata(L, -1) && lua_touserdata(L, -1) == (void *)&mg_frozen_key) {
            mg_api_error(L, "module '%s' requires itself", lua_tostring(L, 1));
        }
        return 1;
    }
    lua_pop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MODULES); // 3
    lua_pushvalue(L, 1);
    int type = lua_rawget(L, 3);
    if (type == LUA_TSTRING) mg_api_error(L, "module '%s' does not compile: %s", lua_tostring(L, 1), lua_tostring(L, -1));
    if (type != LUA_TFUNCTION) {
        mg_api_error(L, "module '%s' is not there: only other keys of the same ConfigMap can be required",
                     lua_tostring(L, 1));
    }
    lua_pushvalue(L, 1);
    lua_pushlightuserdata(L, &mg_frozen_key); // "being loaded"
    lua_rawset(L, 2);
    lua_pushvalue(L, 1); // function, name
    int status = lua_pcall(L, 1, 1, 0);
    if (status != LUA_OK) {
        mg_undeafen(L);
        mg_vm *vm = mg_of(L);
        if (mg_fatal(L, vm, status, -1)) mg_rethrow(L, vm);
        lua_pushvalue(L, 1);
        lua_pushnil(L);
        lua_rawset(L, 2);
        return lua_error(L);
    }
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, 2);
    return 1;
}

// --------------------------------------------------------------------------------------------------------- coroutines
//
// A yield has one of three meanings: of the script to its resume; of a host function to the loop, which passes through
// every resume of the script; of the hook, which nothing ever resumes and which passes through too.

static lua_State *mg_check_coroutine(lua_State *L, int index) {
    lua_State *co = lua_tothread(L, index);
    luaL_argexpected(L, co != NULL, index, "coroutine");
    return co;
}

// Coroutines that wait for the host belong to their request; another request of the same VM must not touch them.
static bool mg_waits(const mg_vm *vm, const lua_State *co) {
    if (vm->waiting == 0) return false;
    for (uint32_t i = 0; i < vm->slot_count; i++) {
        const mg_slot *slot = &vm->slots[i];
        for (int j = 0; j < slot->chain_count; j++) {
            if (slot->chain[j] == co) return true;
        }
    }
    return false;
}

static const char *mg_state_of(lua_State *L, mg_vm *vm, lua_State *co) {
    if (L == co) return "running";
    if (co == vm->main || mg_waits(vm, co)) return "normal";
    switch (lua_status(co)) {
    case LUA_YIELD:
        return "suspended";
    case LUA_OK: {
        lua_Debug ar;
        if (lua_getstack(co, 0, &ar)) return "normal";
        return lua_gettop(co) == 0 ? "dead" : "suspended";
    }
    default:
        return "dead";
    }
}

typedef enum mg_entered { MG_ENTERED_VALUES, MG_ENTERED_ERROR, MG_ENTERED_HOST, MG_ENTERED_KILL } mg_entered;

// Resumes `co` with the values on its own stack. On values and errors they are on the stack of `co`.
static mg_entered mg_enter(lua_State *L, mg_vm *vm, lua_State *co, int arguments, int *results) {
    for (;;) {
        if (vm->chain_count >= MG_MAX_CHAIN) luaL_error(L, "too many nested coroutines");
        vm->chain[vm->chain_count++] = co;
        vm->running = co;
        mg_sync_hook(co, vm);
        int status = lua_resume(co, L, arguments, results);
        vm->running = L;
        mg_sync_hook(L, vm);
        if (status == LUA_YIELD && vm->yield != MG_YIELD_USER) {
            if (vm->yield == MG_YIELD_KILL) return MG_ENTERED_KILL; // stays in the chain, to be closed
            if (lua_isyieldable(L)) return MG_ENTERED_HOST;
            // The coroutine may wait, but whoever resumed it may not.
            vm->chain_count--;
            mg_out_clear(&vm->out);
            static const char message[] =
                "this call waits for the host, and can not inside a sort comparator, a gsub callback or a metamethod";
            mg_out_bytes(&vm->out, message, sizeof message - 1);
            vm->resume_error = true;
            arguments = 0;
            continue;
        }
        vm->chain_count--;
        if (status == LUA_OK || status == LUA_YIELD) return MG_ENTERED_VALUES;
        if (mg_fatal(co, vm, status, -1)) return MG_ENTERED_KILL;
        return MG_ENTERED_ERROR;
    }
}

static void mg_close(lua_State *L, mg_vm *vm, lua_State *co) {
    // Lua 5.4.4 does not count C levels through closing.
    if (vm->close_depth >= MG_MAX_CLOSE_DEPTH) luaL_error(L, "C stack overflow");
    vm->close_depth++;
    vm->running = co;
    mg_sync_hook(co, vm);
    (void)mg_reset(co);
    vm->running = L;
    vm->close_depth--;
    mg_sync_hook(L, vm);
    if (vm->killed != MG_ERROR_NONE) mg_rethrow(L, vm);
}

static int mg_resume_continue(lua_State *L, int status, lua_KContext context);
static int mg_wrap_continue(lua_State *L, int status, lua_KContext context);

// The values of `co` move to L; an error message is left on the top of L, and false returned.
static bool mg_collect(lua_State *L, lua_State *co, int results) {
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return false;
    }
    lua_xmove(co, L, results);
    return true;
}

static int mg_resume_finish(lua_State *L, mg_vm *vm, lua_State *co, mg_entered entered, int results) {
    switch (entered) {
    case MG_ENTERED_HOST:
        return lua_yieldk(L, 0, (lua_KContext)co, mg_resume_continue);
    case MG_ENTERED_KILL:
        mg_rethrow(L, vm);
    case MG_ENTERED_VALUES:
        if (mg_collect(L, co, results)) {
            lua_pushboolean(L, 1);
            lua_insert(L, -(results + 1));
            return results + 1;
        }
        break;
    case MG_ENTERED_ERROR:
        lua_xmove(co, L, 1);
        break;
    }
    lua_pushboolean(L, 0);
    lua_insert(L, -2);
    return 2;
}

// Arguments are on the top of L.
static const char *mg_hand_over(lua_State *L, mg_vm *vm, lua_State *co, int arguments) {
    mg_charge(L, vm, MG_LIBRARY_CREDIT);
    if (co == vm->main || co == L || mg_waits(vm, co)) return "cannot resume non-suspended coroutine";
    const char *state = mg_state_of(L, vm, co);
    if (*state == 'd') return "cannot resume dead coroutine";
    if (*state != 's') return "cannot resume non-suspended coroutine";
    if (!lua_checkstack(co, arguments)) return "too many arguments to resume";
    lua_xmove(L, co, arguments);
    return NULL;
}

static int mg_co_resume(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_State *co = mg_check_coroutine(L, 1);
    int arguments = lua_gettop(L) - 1;
    const char *refused = mg_hand_over(L, vm, co, arguments);
    if (refused != NULL) {
        lua_pushboolean(L, 0);
        lua_pushstring(L, refused);
        return 2;
    }
    int results = 0;
    mg_entered entered = mg_enter(L, vm, co, arguments, &results);
    return mg_resume_finish(L, vm, co, entered, results);
}

static int mg_resume_continue(lua_State *L, int status, lua_KContext context) {
    (void)status;
    mg_vm *vm = mg_of(L);
    lua_State *co = (lua_State *)context;
    int results = 0;
    mg_entered entered = mg_enter(L, vm, co, 0, &results);
    return mg_resume_finish(L, vm, co, entered, results);
}

static int mg_wrap_finish(lua_State *L, mg_vm *vm, lua_State *co, mg_entered entered, int results) {
    switch (entered) {
    case MG_ENTERED_HOST:
        return lua_yieldk(L, 0, (lua_KContext)co, mg_wrap_continue);
    case MG_ENTERED_KILL:
        mg_rethrow(L, vm);
    case MG_ENTERED_VALUES:
        if (mg_collect(L, co, results)) return results;
        break;
    case MG_ENTERED_ERROR:
        if (lua_status(co) != LUA_OK && lua_status(co) != LUA_YIELD) {
            mg_close(L, vm, co); // its variables; a new error takes the place of the old one
        }
        lua_xmove(co, L, 1);
        break;
    }
    // Lua puts the place of the call in front; a message of the API has its place already, and stays what it is.
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_API_ERROR);
    bool placed = lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    if (!placed && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int mg_wrapped(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int arguments = lua_gettop(L);
    const char *refused = mg_hand_over(L, vm, co, arguments);
    if (refused != NULL) {
        luaL_where(L, 1);
        lua_pushstring(L, refused);
        lua_concat(L, 2);
        return lua_error(L);
    }
    int results = 0;
    mg_entered entered = mg_enter(L, vm, co, arguments, &results);
    return mg_wrap_finish(L, vm, co, entered, results);
}

static int mg_wrap_continue(lua_State *L, int status, lua_KContext context) {
    (void)status;
    mg_vm *vm = mg_of(L);
    lua_State *co = (lua_State *)context;
    int results = 0;
    mg_entered entered = mg_enter(L, vm, co, 0, &results);
    return mg_wrap_finish(L, vm, co, entered, results);
}

static int mg_co_create(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    mg_vm *vm = mg_of(L);
    mg_charge(L, vm, MG_LIBRARY_CREDIT);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static int mg_co_wrap(lua_State *L) {
    mg_co_create(L);
    lua_pushcclosure(L, mg_wrapped, 1);
    return 1;
}

static int mg_co_yield(lua_State *L) {
    mg_vm *vm = mg_of(L);
    if (L == vm->top || L == vm->main) return luaL_error(L, "attempt to yield from outside a coroutine");
    vm->yield = MG_YIELD_USER;
    return lua_yield(L, lua_gettop(L));
}

static int mg_co_status(lua_State *L) {
    lua_State *co = mg_check_coroutine(L, 1);
    lua_pushstring(L, mg_state_of(L, mg_of(L), co));
    return 1;
}

static int mg_co_isyieldable(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_State *co = lua_isnone(L, 1) ? L : mg_check_coroutine(L, 1);
    lua_pushboolean(L, co != vm->top && co != vm->main && lua_isyieldable(co));
    return 1;
}

static int mg_co_running(lua_State *L) {
    mg_vm *vm = mg_of(L);
    if (L == vm->top || L == vm->main) {
        // The pooled coroutine of the run is not shown: it serves other requests later.
        lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
        lua_pushboolean(L, 1);
    } else {
        lua_pushthread(L);
        lua_pushboolean(L, 0);
    }
    return 2;
}

static int mg_co_close(lua_State *L) {
    mg_vm *vm = mg_of(L);
    lua_State *co = mg_check_coroutine(L, 1);
    const char *state = mg_state_of(L, vm, co);
    if (*state != 'd' && *state != 's') return luaL_error(L, "cannot close a %s coroutine", state);
    if (vm->close_depth >= MG_MAX_CLOSE_DEPTH) return luaL_error(L, "C stack overflow");
    mg_charge(L, vm, MG_LIBRARY_CREDIT);
    if (mg_is_deaf(co)) {
        lua_pushboolean(L, 0);
        lua_pushliteral(L, "the coroutine was ended together with the run that resumed it");
        return 2;
    }
    vm->close_depth++;
    vm->running = co;
    mg_sync_hook(co, vm);
    int status = mg_reset(co);
    vm->running = L;
    vm->close_depth--;
    mg_sync_hook(L, vm);
    if (vm->killed != MG_ERROR_NONE || (status != LUA_OK && mg_fatal(co, vm, status, -1))) mg_rethrow(L, vm);
    if (status == LUA_OK) {
        lua_pushboolean(L, 1);
        return 1;
    }
    lua_pushboolean(L, 0);
    lua_xmove(co, L, 1);
    return 2;
}

// -------------------------------------------------------------------------------------------------------------- open

void mg_open_base(lua_State *L, mg_vm *vm) {
    (void)vm;
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    int base = lua_gettop(L);
    lua_pushcfunction(L, luaopen_base);
    lua_call(L, 0, 1);
    static const char *const kept[] = {"assert", "ipairs", "rawequal", "select", "tonumber", "type"};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        lua_getfield(L, -1, kept[i]);
        lua_setfield(L, base, kept[i]);
    }
    // Stock getmetatable respects __metatable, which ours all have.
    lua_getfield(L, -1, "getmetatable");
    lua_setfield(L, base, "getmetatable");
    lua_pop(L, 1);
    static const luaL_Reg functions[] = {{"error", mg_base_error},
                                         {"next", mg_frozen_next},
                                         {"pairs", mg_base_pairs},
                                         {"pcall", mg_base_pcall},
                                         {"rawget", mg_base_rawget},
                                         {"rawlen", mg_base_rawlen},
                                         {"rawset", mg_base_rawset},
                                         {"require", mg_base_require},
                                         {"setmetatable", mg_base_setmetatable},
                                         {"tostring", mg_base_tostring},
                                         {"xpcall", mg_base_xpcall},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    lua_pushliteral(L, "Lua 5.4");
    lua_setfield(L, -2, "_VERSION");

    lua_pushcfunction(L, luaopen_math);
    lua_call(L, 0, 1);
    lua_pushnil(L);
    lua_setfield(L, -2, "randomseed");
    mg_freeze(L, "math");
    lua_setfield(L, base, "math");
    lua_settop(L, base - 1);
}

void mg_open_coroutine(lua_State *L, mg_vm *vm) {
    (void)vm;
    static const luaL_Reg functions[] = {{"close", mg_co_close},   {"create", mg_co_create},
                                         {"isyieldable", mg_co_isyieldable}, {"resume", mg_co_resume},
                                         {"running", mg_co_running}, {"status", mg_co_status},
                                         {"wrap", mg_co_wrap},     {"yield", mg_co_yield},
                                         {NULL, NULL}};
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    luaL_newlib(L, functions);
    mg_freeze(L, "coroutine");
    lua_setfield(L, -2, "coroutine");
    lua_pop(L, 1);
}
