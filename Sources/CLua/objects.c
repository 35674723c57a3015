// The fixed objects of a request: req, res, ctx and what hangs on them. All are light userdata (see mg_handle) behind one
// metatable; the host's callbacks do the work. Reading a header makes nothing but the Lua string.
#include "internal.h"

// -------------------------------------------------------------------------------------------------------------- members

#define MG_KEYS(X)                                                                                                      \
    X(id) X(method) X(scheme) X(host) X(path) X(raw_path) X(http_version) X(headers) X(cookies) X(query) X(client)      \
    X(bearer) X(unit) X(get) X(all) X(set) X(append) X(remove) X(has) X(pairs) X(tostring) X(ip) X(port)                \
    X(trusted_proxy) X(tls) X(status) X(origin) X(upstream) X(config) X(state) X(shared) X(ingress) X(tag) X(deadline)  \
    X(use) X(hash_key) X(timeout) X(retries) X(namespace) X(name) X(rule) X(mirror) X(span) X(body)

enum {
    MG_KEY_none = 0,
#define X(key) MG_KEY_##key,
    MG_KEYS(X)
#undef X
        MG_KEY_COUNT
};

static const char *const mg_key_names[MG_KEY_COUNT] = {
    "",
#define X(key) #key,
    MG_KEYS(X)
#undef X
};

typedef enum mg_member_type {
    MG_MEMBER_NONE = 0,
    MG_MEMBER_METHOD,
    MG_MEMBER_CHILD,
    MG_MEMBER_FIELD,
    MG_MEMBER_CONFIG,
    MG_MEMBER_STATE,
    MG_MEMBER_LATER // named by the documentation, not there in this version: reading it says so
} mg_member_type;

typedef struct mg_member {
    uint8_t type;
    uint8_t value; // the kind of a child, the field
    lua_CFunction method;
} mg_member;

static const char *const mg_kind_names[MG_KIND_COUNT] = {
    "?",          "null",  "req",    "res",          "ctx",        "req.headers", "res.headers",
    "req.cookies", "res.cookies", "req.query", "req.client", "ctx.upstream", "ctx.shared", "ctx.ingress"};

// ------------------------------------------------------------------------------------------------------------- checks

static inline uint64_t mg_to_handle(lua_State *L, int index) { return (uint64_t)(uintptr_t)lua_touserdata(L, index); }

static _Noreturn void mg_stale(lua_State *L, mg_vm *vm, uint64_t handle) {
    const char *name = mg_kind_names[mg_handle_kind(handle)];
    if (vm->run == NULL) mg_api_error(L, "%s cannot be used here: no request is running", name);
    mg_api_error(L, "%s belongs to a request that has ended or is not the running one; "
                    "do not keep it outside of the function that it was given to", name);
}

static inline void mg_check_live(lua_State *L, mg_vm *vm, uint64_t handle) {
    uint32_t slot = mg_handle_slot(handle);
    if (vm->run == NULL || slot != vm->slot || slot >= vm->slot_count ||
        (vm->slots[slot].generation & MG_GENERATION_MASK) != (handle & MG_GENERATION_MASK)) {
        mg_stale(L, vm, handle);
    }
}

static _Noreturn void mg_wrong_self(lua_State *L, const char *method) {
    mg_api_error(L, "call it with a colon: object:%s(…)", method);
}

// The handle that a method was called on, of one of the kinds from `first` to `last`.
static inline uint64_t mg_self(lua_State *L, mg_vm *vm, mg_kind first, mg_kind last, const char *method) {
    // Anything else has kind 0: nil for what is no userdata, an address without its highest byte for a full one.
    uint64_t handle = mg_to_handle(L, 1);
    mg_kind kind = mg_handle_kind(handle);
    if (kind < first || kind > last) mg_wrong_self(L, method);
    mg_check_live(L, vm, handle);
    return handle;
}

void mg_need_phase(lua_State *L, mg_vm *vm, uint32_t phases, const char *what) {
    if (vm->phase_bit & phases) return;
    mg_api_error(L, "%s is not available in %s", what, mg_phase_name(vm->phase));
}

// ---------------------------------------------------------------------------------------------------------- multimaps

static inline mg_map mg_map_of(mg_kind kind) {
    switch (kind) {
    case MG_KIND_RES_HEADERS: return MG_RES_HEADERS;
    case MG_KIND_REQ_COOKIES: return MG_REQ_COOKIES;
    case MG_KIND_RES_COOKIES: return MG_RES_COOKIES;
    case MG_KIND_QUERY: return MG_QUERY;
    case MG_KIND_REQ_HEADERS:
    default: return MG_REQ_HEADERS;
    }
}

static int mg_map_get(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_self(L, vm, MG_KIND_REQ_HEADERS, MG_KIND_QUERY, "get");
    size_t length;
    const char *name = luaL_checklstring(L, 2, &length);
    uint64_t cursor = 0;
    mg_out_clear(&vm->out);
    if (vm->host.map_get(vm->run, mg_map_of(mg_handle_kind(handle)), name, length, &cursor, &vm->out)) {
        mg_push_first(L, vm, &vm->out);
    } else {
        mg_charge_out(L, vm);
        lua_pushnil(L);
    }
    return 1;
}

static int mg_map_has(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_self(L, vm, MG_KIND_REQ_HEADERS, MG_KIND_QUERY, "has");
    size_t length;
    const char *name = luaL_checklstring(L, 2, &length);
    uint64_t cursor = 0;
    mg_out_clear(&vm->out);
    lua_pushboolean(L, vm->host.map_get(vm->run, mg_map_of(mg_handle_kind(handle)), name, length, &cursor, &vm->out));
    mg_charge_out(L, vm);
    return 1;
}

static int mg_map_all(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_self(L, vm, MG_KIND_REQ_HEADERS, MG_KIND_QUERY, "all");
    size_t length;
    const char *name = luaL_checklstring(L, 2, &length);
    lua_newtable(L);
    uint64_t cursor = 0;
    for (lua_Integer count = 1;; count++) {
        mg_out_clear(&vm->out);
        if (!vm->host.map_get(vm->run, mg_map_of(mg_handle_kind(handle)), name, length, &cursor, &vm->out)) {
            mg_charge_out(L, vm);
            return 1;
        }
        mg_push_first(L, vm, &vm->out);
        lua_rawseti(L, -2, count);
        mg_charge(L, vm, 64);
    }
}

// A walk over what was there when it began, so that the script may edit while it walks.
static int mg_map_step(lua_State *L) {
    lua_Integer at = lua_tointeger(L, lua_upvalueindex(2));
    lua_pushinteger(L, at + 2);
    lua_replace(L, lua_upvalueindex(2));
    if (lua_rawgeti(L, lua_upvalueindex(1), at) == LUA_TNIL) return 1;
    lua_rawgeti(L, lua_upvalueindex(1), at + 1);
    return 2;
}

static int mg_map_pairs(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_self(L, vm, MG_KIND_REQ_HEADERS, MG_KIND_QUERY, "pairs");
    lua_newtable(L);
    lua_Integer count = 0;
    for (uint64_t cursor = 0;;) {
        mg_out_clear(&vm->out);
        if (!vm->host.map_entry(vm->run, mg_map_of(mg_handle_kind(handle)), &cursor, &vm->out)) {
            mg_charge_out(L, vm);
            break;
        }
        if (vm->out.failed || vm->out.count != 2) mg_kill(L, vm, MG_ERROR_MEMORY);
        for (int i = 0; i < 2; i++) {
            const mg_value *value = &vm->out.values[i];
            lua_pushlstring(L, mg_out_text(&vm->out, value), value->tag == MG_BYTES ? value->length : 0);
            lua_rawseti(L, -2, ++count);
        }
        mg_charge_out(L, vm);
        mg_charge(L, vm, 64);
    }
    lua_pushinteger(L, 1);
    lua_pushcclosure(L, mg_map_step, 2);
    return 1;
}

static void mg_need_edit(lua_State *L, mg_vm *vm, mg_map map) {
    switch (map) {
    case MG_REQ_HEADERS:
        mg_need_phase(L, vm, MG_PHASES_REQUEST, "editing req.headers");
        break;
    case MG_QUERY:
        mg_need_phase(L, vm, MG_PHASES_REQUEST, "editing req.query");
        break;
    case MG_RES_HEADERS:
        mg_need_phase(L, vm, MG_PHASE_BIT(MG_PHASE_HEADER_FILTER), "editing res.headers");
        break;
    case MG_RES_COOKIES:
        mg_need_phase(L, vm, MG_PHASE_BIT(MG_PHASE_HEADER_FILTER), "editing res.cookies");
        break;
    case MG_REQ_COOKIES:
        mg_api_error(L, "req.cookies is read-only; set the cookie header, or res.cookies in header_filter");
    }
}

static void mg_edit_one(lua_State *L, mg_vm *vm, mg_map map, mg_edit edit, int value_index) {
    size_t name_length, value_length = 0;
    const char *name = lua_tolstring(L, 2, &name_length);
    const char *value = NULL;
    if (edit != MG_EDIT_REMOVE) {
        if (!lua_isstring(L, value_index)) {
            mg_api_error(L, "the value of '%s' is a %s; it must be a string", name, luaL_typename(L, value_index));
        }
        value = lua_tolstring(L, value_index, &value_length);
    }
    mg_out_clear(&vm->out);
    mg_charge(L, vm, 64 + value_length);
    if (vm->host.map_edit(vm->run, map, edit, name, name_length, value, value_length, &vm->out) != MG_HOST_OK) {
        mg_host_error(L, vm);
    }
    mg_charge_out(L, vm);
}

static int mg_cookie_set(lua_State *L, mg_vm *vm, bool remove) {
    size_t name_length, value_length = 0;
    const char *name = luaL_checklstring(L, 2, &name_length);
    const char *value = remove ? NULL : luaL_checklstring(L, 3, &value_length);
    int attributes = remove ? 3 : 4;
    lua_settop(L, attributes);
    if (!lua_isnil(L, attributes)) luaL_checktype(L, attributes, LUA_TTABLE);
    mg_out_clear(&vm->arguments);
    mg_marshal(L, vm, attributes, &vm->arguments, true);
    mg_charge(L, vm, 64 + value_length);
    mg_out_clear(&vm->out);
    if (vm->host.cookie_set(vm->run, name, name_length, value, value_length, vm->arguments.values,
                            vm->arguments.count, &vm->out) != MG_HOST_OK) {
        mg_host_error(L, vm);
    }
    mg_charge_out(L, vm);
    return 0;
}

void mg_check_list(lua_State *L, int index, const char *name) {
    index = lua_absindex(L, index);
    if (lua_rawlen(L, index) > 0) return;
    lua_pushnil(L);
    if (lua_next(L, index)) mg_api_error(L, "'%s' is a table with keys; a value is a string or a list of them", name);
}

static int mg_map_set(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_self(L, vm, MG_KIND_REQ_HEADERS, MG_KIND_QUERY, "set");
    mg_map map = mg_map_of(mg_handle_kind(handle));
    luaL_checkstring(L, 2);
    mg_need_edit(L, vm, map);
    if (map == MG_RES_COOKIES) return mg_cookie_set(L, vm, false);
    lua_settop(L, 3);
    if (!lua_istable(L, 3)) {
        mg_edit_one(L, vm, map, MG_EDIT_SET, 3);
        return 0;
    }
    mg_unwrap(L, 3);
    mg_check_list(L, 3, lua_tostring(L, 2));
    lua_Integer count = (lua_Integer)lua_rawlen(L, 3);
    if (count == 0) mg_edit_one(L, vm, map, MG_EDIT_REMOVE, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 3, i);
        mg_edit_one(L, vm, map, i == 1 ? MG_EDIT_SET : MG_EDIT_APPEND, 4);
        lua_settop(L, 3);
    }
    return 0;
}

static int mg_map_append(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_self(L, vm, MG_KIND_REQ_HEADERS, MG_KIND_QUERY, "append");
    mg_map map = mg_map_of(mg_handle_kind(handle));
    luaL_checkstring(L, 2);
    mg_need_edit(L, vm, map);
    lua_settop(L, 3);
    mg_edit_one(L, vm, map, MG_EDIT_APPEND, 3);
    return 0;
}

static int mg_map_remove(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_self(L, vm, MG_KIND_REQ_HEADERS, MG_KIND_QUERY, "remove");
    mg_map map = mg_map_of(mg_handle_kind(handle));
    luaL_checkstring(L, 2);
    mg_need_edit(L, vm, map);
    if (map == MG_RES_COOKIES) return mg_cookie_set(L, vm, true);
    lua_settop(L, 2);
    mg_edit_one(L, vm, map, MG_EDIT_REMOVE, 0);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------- req

static int mg_push_field(lua_State *L, mg_vm *vm, mg_field field) {
    mg_out_clear(&vm->out);
    if (vm->host.field_get(vm->run, field, &vm->out)) mg_push_first(L, vm, &vm->out);
    else lua_pushnil(L);
    return 1;
}

static int mg_query_tostring(lua_State *L) {
    mg_vm *vm = mg_of(L);
    mg_self(L, vm, MG_KIND_QUERY, MG_KIND_QUERY, "tostring");
    return mg_push_field(L, vm, MG_QUERY_STRING);
}

static int mg_req_bearer(lua_State *L) {
    mg_vm *vm = mg_of(L);
    mg_self(L, vm, MG_KIND_REQ, MG_KIND_REQ, "bearer");
    return mg_push_field(L, vm, MG_REQ_BEARER);
}

static int mg_req_unit(lua_State *L) {
    mg_vm *vm = mg_of(L);
    mg_self(L, vm, MG_KIND_REQ, MG_KIND_REQ, "unit");
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    mg_unwrap(L, 2);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 2);
    lua_Integer unavailable = 0;
    for (lua_Integer i = 1; i <= count; i++) {
        if (lua_rawgeti(L, 2, i) != LUA_TSTRING) {
            mg_api_error(L, "a source of req:unit is a string such as \"cookie:uid\"");
        }
        size_t length;
        const char *source = lua_tolstring(L, -1, &length);
        mg_out_clear(&vm->out);
        mg_charge(L, vm, 64 + length);
        mg_host_status status = vm->host.unit(vm->run, source, length, &vm->out);
        if (status == MG_HOST_UNAVAILABLE) {
            if (unavailable == 0) unavailable = i;
        } else if (status != MG_HOST_OK) {
            mg_host_error(L, vm);
        } else if (vm->out.count > 0 && vm->out.values[0].tag != MG_NIL) {
            mg_push_first(L, vm, &vm->out);
            return 1;
        }
        mg_charge_out(L, vm);
        lua_pop(L, 1);
    }
    if (unavailable != 0) {
        // Nothing else served: nil would say that the client has no such unit, which nobody knows.
        lua_rawgeti(L, 2, unavailable);
        size_t length;
        const char *source = lua_tolstring(L, -1, &length);
        mg_out_clear(&vm->out);
        (void)vm->host.unit(vm->run, source, length, &vm->out);
        mg_host_error(L, vm);
    }
    lua_pushnil(L);
    return 1;
}

// ---------------------------------------------------------------------------------------------------------------- ctx

// A scalar as a value that borrows its bytes from the stack.
static mg_value mg_scalar(lua_State *L, int index, const char *what) {
    mg_value value = {MG_NIL, 0, {0}};
    switch (lua_type(L, index)) {
    case LUA_TNIL:
        break;
    case LUA_TBOOLEAN:
        value.tag = MG_BOOL;
        value.as.integer = lua_toboolean(L, index);
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, index)) {
            value.tag = MG_INT;
            value.as.integer = lua_tointeger(L, index);
        } else {
            value.tag = MG_NUM;
            value.as.number = lua_tonumber(L, index);
        }
        break;
    case LUA_TSTRING: {
        size_t length;
        value.tag = MG_BYTES;
        value.as.bytes = lua_tolstring(L, index, &length);
        value.length = (uint32_t)length;
        break;
    }
    default: {
        mg_box *box = mg_to_box(L, index);
        if (box == NULL) {
            mg_api_error(L, "%s cannot be a %s; use a string, a number or a boolean", what, luaL_typename(L, index));
        }
        value.tag = MG_HANDLE;
        value.length = box->class_id;
        value.as.handle = box->handle;
        break;
    }
    }
    return value;
}

static int mg_ctx_tag(lua_State *L) {
    mg_vm *vm = mg_of(L);
    mg_self(L, vm, MG_KIND_CTX, MG_KIND_CTX, "tag");
    size_t length;
    const char *key = luaL_checklstring(L, 2, &length);
    lua_settop(L, 3);
    mg_value value = mg_scalar(L, 3, "a tag");
    mg_charge(L, vm, 64 + length);
    mg_out_clear(&vm->out);
    if (vm->host.tag(vm->run, key, length, &value, &vm->out) != MG_HOST_OK) mg_host_error(L, vm);
    return 0;
}

static int mg_ctx_deadline(lua_State *L) {
    mg_vm *vm = mg_of(L);
    mg_self(L, vm, MG_KIND_CTX, MG_KIND_CTX, "deadline");
    return mg_push_field(L, vm, MG_CTX_DEADLINE);
}

static _Noreturn void mg_later(lua_State *L, const char *name) {
    mg_api_error(L, "%s is not available in this version of Moongate", name);
}

static int mg_ctx_span(lua_State *L) { mg_later(L, "ctx:span"); }
static int mg_upstream_mirror(lua_State *L) { mg_later(L, "ctx.upstream:mirror"); }

static int mg_upstream_call(lua_State *L, mg_upstream_op operation, const char *name) {
    mg_vm *vm = mg_of(L);
    mg_self(L, vm, MG_KIND_UPSTREAM, MG_KIND_UPSTREAM, name);
    if ((vm->phase_bit & MG_PHASE_BIT(MG_PHASE_ROUTE)) == 0) {
        mg_api_error(L, "ctx.upstream:%s is not available in %s; choose the upstream in route", name,
                     mg_phase_name(vm->phase));
    }
    luaL_checkany(L, 2);
    mg_out_clear(&vm->out);
    if (lua_gettop(L) == 2) {
        // The common case costs no marshalling.
        mg_value value = mg_scalar(L, 2, "this argument");
        mg_charge(L, vm, 64 + (value.tag == MG_BYTES ? value.length : 0));
        if (vm->host.upstream(vm->run, operation, &value, 1, &vm->out) != MG_HOST_OK) mg_host_error(L, vm);
        return 0;
    }
    mg_out_clear(&vm->arguments);
    for (int i = 2; i <= lua_gettop(L); i++) mg_marshal(L, vm, i, &vm->arguments, true);
    if (vm->host.upstream(vm->run, operation, vm->arguments.values, vm->arguments.count, &vm->out) != MG_HOST_OK) {
        mg_host_error(L, vm);
    }
    return 0;
}

static int mg_upstream_use(lua_State *L) { return mg_upstream_call(L, MG_UPSTREAM_USE, "use"); }
static int mg_upstream_hash_key(lua_State *L) { return mg_upstream_call(L, MG_UPSTREAM_HASH_KEY, "hash_key"); }
static int mg_upstream_timeout(lua_State *L) { return mg_upstream_call(L, MG_UPSTREAM_TIMEOUT, "timeout"); }
static int mg_upstream_retries(lua_State *L) { return mg_upstream_call(L, MG_UPSTREAM_RETRIES, "retries"); }

static int mg_push_state(lua_State *L, mg_vm *vm) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_STATES);
    if (lua_rawgeti(L, -1, (lua_Integer)vm->slot + 1) == LUA_TTABLE) return 1;
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, -3, (lua_Integer)vm->slot + 1);
    vm->slots[vm->slot].has_state = true;
    return 1;
}

// ------------------------------------------------------------------------------------------------------- the metatable

#define METHOD(f) {MG_MEMBER_METHOD, 0, f}
#define CHILD(k) {MG_MEMBER_CHILD, k, NULL}
#define FIELD(f) {MG_MEMBER_FIELD, f, NULL}

#define MG_MAP_METHODS                                                                                          \
    [MG_KEY_get] = METHOD(mg_map_get), [MG_KEY_has] = METHOD(mg_map_has), [MG_KEY_all] = METHOD(mg_map_all),    \
    [MG_KEY_pairs] = METHOD(mg_map_pairs), [MG_KEY_set] = METHOD(mg_map_set),                                   \
    [MG_KEY_append] = METHOD(mg_map_append), [MG_KEY_remove] = METHOD(mg_map_remove)

static const mg_member mg_members[MG_KIND_COUNT][MG_KEY_COUNT] = {
    [MG_KIND_REQ] =
        {
            [MG_KEY_id] = FIELD(MG_REQ_ID),
            [MG_KEY_method] = FIELD(MG_REQ_METHOD),
            [MG_KEY_scheme] = FIELD(MG_REQ_SCHEME),
            [MG_KEY_host] = FIELD(MG_REQ_HOST),
            [MG_KEY_path] = FIELD(MG_REQ_PATH),
            [MG_KEY_raw_path] = FIELD(MG_REQ_RAW_PATH),
            [MG_KEY_http_version] = FIELD(MG_REQ_HTTP_VERSION),
            [MG_KEY_headers] = CHILD(MG_KIND_REQ_HEADERS),
            [MG_KEY_cookies] = CHILD(MG_KIND_REQ_COOKIES),
            [MG_KEY_query] = CHILD(MG_KIND_QUERY),
            [MG_KEY_client] = CHILD(MG_KIND_CLIENT),
            [MG_KEY_bearer] = METHOD(mg_req_bearer),
            [MG_KEY_unit] = METHOD(mg_req_unit),
            [MG_KEY_body] = {MG_MEMBER_LATER, 0, NULL},
        },
    [MG_KIND_RES] =
        {
            [MG_KEY_status] = FIELD(MG_RES_STATUS),
            [MG_KEY_origin] = FIELD(MG_RES_ORIGIN),
            [MG_KEY_upstream] = FIELD(MG_RES_UPSTREAM),
            [MG_KEY_headers] = CHILD(MG_KIND_RES_HEADERS),
            [MG_KEY_cookies] = CHILD(MG_KIND_RES_COOKIES),
            [MG_KEY_body] = {MG_MEMBER_LATER, 0, NULL},
        },
    [MG_KIND_CTX] =
        {
            [MG_KEY_config] = {MG_MEMBER_CONFIG, 0, NULL},
            [MG_KEY_state] = {MG_MEMBER_STATE, 0, NULL},
            [MG_KEY_shared] = CHILD(MG_KIND_SHARED),
            [MG_KEY_upstream] = CHILD(MG_KIND_UPSTREAM),
            [MG_KEY_ingress] = CHILD(MG_KIND_INGRESS),
            [MG_KEY_tag] = METHOD(mg_ctx_tag),
            [MG_KEY_deadline] = METHOD(mg_ctx_deadline),
            [MG_KEY_span] = METHOD(mg_ctx_span),
        },
    [MG_KIND_REQ_HEADERS] = {MG_MAP_METHODS},
    [MG_KIND_RES_HEADERS] = {MG_MAP_METHODS},
    [MG_KIND_REQ_COOKIES] = {MG_MAP_METHODS},
    [MG_KIND_RES_COOKIES] = {MG_MAP_METHODS},
    [MG_KIND_QUERY] = {MG_MAP_METHODS, [MG_KEY_tostring] = METHOD(mg_query_tostring)},
    [MG_KIND_CLIENT] =
        {
            [MG_KEY_ip] = FIELD(MG_CLIENT_IP),
            [MG_KEY_port] = FIELD(MG_CLIENT_PORT),
            [MG_KEY_trusted_proxy] = FIELD(MG_CLIENT_TRUSTED_PROXY),
            [MG_KEY_tls] = FIELD(MG_CLIENT_TLS),
        },
    [MG_KIND_UPSTREAM] =
        {
            [MG_KEY_use] = METHOD(mg_upstream_use),
            [MG_KEY_hash_key] = METHOD(mg_upstream_hash_key),
            [MG_KEY_timeout] = METHOD(mg_upstream_timeout),
            [MG_KEY_retries] = METHOD(mg_upstream_retries),
            [MG_KEY_mirror] = METHOD(mg_upstream_mirror),
        },
    [MG_KIND_INGRESS] =
        {
            [MG_KEY_namespace] = FIELD(MG_INGRESS_NAMESPACE),
            [MG_KEY_name] = FIELD(MG_INGRESS_NAME),
            [MG_KEY_rule] = FIELD(MG_INGRESS_RULE),
        },
};

static inline size_t mg_key_slot(const void *text) {
    uintptr_t bits = (uintptr_t)text;
    return (size_t)((bits >> 4) ^ (bits >> 11)) & (MG_KEY_SLOTS - 1);
}

// Short strings are interned: the pointer is the name, and no other object has it.
static inline uint8_t mg_find_key(const mg_vm *vm, const void *text) {
    for (size_t slot = mg_key_slot(text);; slot = (slot + 1) & (MG_KEY_SLOTS - 1)) {
        if (vm->keys[slot].text == text) return vm->keys[slot].id;
        if (vm->keys[slot].text == NULL) return MG_KEY_none;
    }
}

static void mg_push_frozen(lua_State *L, mg_vm *vm, const char *name) {
    if (vm->out.failed) mg_kill(L, vm, MG_ERROR_MEMORY);
    size_t at = 0;
    mg_push_tree(L, vm, vm->out.values, vm->out.count, &at, vm->out.bytes == NULL ? "" : vm->out.bytes, name);
    mg_charge_out(L, vm);
}

static int mg_res_upstream(lua_State *L, mg_vm *vm) {
    mg_out_clear(&vm->out);
    // A response of ours or of a script has no upstream: its fields are nil, and need no check before.
    if (!vm->host.field_get(vm->run, MG_RES_UPSTREAM, &vm->out)) mg_out_map(&vm->out, 0);
    mg_push_frozen(L, vm, "res.upstream");
    return 1;
}

static int mg_shared_get(lua_State *L, mg_vm *vm) {
    size_t length;
    const char *key = lua_tolstring(L, 2, &length);
    mg_out_clear(&vm->out);
    if (vm->host.shared_get(vm->run, key, length, &vm->out)) {
        // A copy, for each machine has its own values: a write into it would be lost, so it is an error.
        mg_push_frozen(L, vm, "a table of ctx.shared");
    } else {
        lua_pushnil(L);
    }
    return 1;
}

static int mg_object_index(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_to_handle(L, 1);
    mg_kind kind = mg_handle_kind(handle);
    if (kind == MG_KIND_SHARED && lua_type(L, 2) == LUA_TSTRING) {
        mg_check_live(L, vm, handle);
        return mg_shared_get(L, vm);
    }
    const mg_member *member = &mg_members[kind < MG_KIND_COUNT ? kind : 0][mg_find_key(vm, lua_topointer(L, 2))];
    switch ((mg_member_type)member->type) {
    case MG_MEMBER_METHOD:
        lua_pushcfunction(L, member->method);
        return 1;
    case MG_MEMBER_CHILD:
        mg_check_live(L, vm, handle);
        mg_push_handle(L, mg_handle((mg_kind)member->value, mg_handle_slot(handle), handle & MG_GENERATION_MASK));
        return 1;
    case MG_MEMBER_FIELD:
        mg_check_live(L, vm, handle);
        if (member->value == MG_RES_UPSTREAM) return mg_res_upstream(L, vm);
        return mg_push_field(L, vm, (mg_field)member->value);
    case MG_MEMBER_LATER:
        mg_later(L, kind == MG_KIND_RES ? "res.body" : "req.body");
    case MG_MEMBER_CONFIG:
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_CONFIG);
        return 1;
    case MG_MEMBER_STATE:
        mg_check_live(L, vm, handle);
        return mg_push_state(L, vm);
    case MG_MEMBER_NONE:
        break;
    }
    if (kind == MG_KIND_NULL) mg_api_error(L, "this value is moongate.json.null; it has no fields");
    lua_pushnil(L);
    return 1;
}

static int mg_object_write(lua_State *L) {
    mg_vm *vm = mg_of(L);
    uint64_t handle = mg_to_handle(L, 1);
    mg_kind kind = mg_handle_kind(handle);
    if (kind >= MG_KIND_COUNT) kind = 0;
    if (lua_type(L, 2) != LUA_TSTRING) mg_api_error(L, "%s takes string keys only", mg_kind_names[kind]);
    size_t length;
    const char *key = lua_tolstring(L, 2, &length);
    if (kind == MG_KIND_SHARED) {
        mg_check_live(L, vm, handle);
        mg_out_clear(&vm->arguments);
        mg_marshal(L, vm, 3, &vm->arguments, true);
        mg_out_clear(&vm->out);
        mg_charge(L, vm, 64 + vm->arguments.count * 16);
        if (vm->host.shared_set(vm->run, key, length, vm->arguments.values, vm->arguments.count, &vm->out) !=
            MG_HOST_OK) {
            mg_host_error(L, vm);
        }
        return 0;
    }
    uint8_t id = mg_find_key(vm, lua_topointer(L, 2));
    mg_field field = MG_FIELD_COUNT;
    if (kind == MG_KIND_REQ && id == MG_KEY_path) field = MG_REQ_PATH;
    if (kind == MG_KIND_REQ && id == MG_KEY_host) field = MG_REQ_HOST;
    if (kind == MG_KIND_RES && id == MG_KEY_status) field = MG_RES_STATUS;
    if (field == MG_FIELD_COUNT) {
        mg_api_error(L, "%s.%s cannot be set%s", mg_kind_names[kind], key,
                     kind == MG_KIND_CTX ? "; ctx.state keeps what the phases of this script share" : "");
    }
    mg_check_live(L, vm, handle);
    switch (field) {
    case MG_REQ_PATH:
        mg_need_phase(L, vm, MG_PHASE_BIT(MG_PHASE_REWRITE), "setting req.path");
        break;
    case MG_REQ_HOST:
        mg_need_phase(L, vm, MG_PHASES_REQUEST, "setting req.host");
        break;
    default:
        mg_need_phase(L, vm, MG_PHASE_BIT(MG_PHASE_HEADER_FILTER), "setting res.status");
        break;
    }
    mg_value value = mg_scalar(L, 3, "this field");
    mg_charge(L, vm, 64 + (value.tag == MG_BYTES ? value.length : 0));
    mg_out_clear(&vm->out);
    if (vm->host.field_set(vm->run, field, &value, &vm->out) != MG_HOST_OK) mg_host_error(L, vm);
    return 0;
}

// What to encode in place of an object that is more than data.
static const char *mg_in_place_of(mg_kind kind) {
    switch (kind) {
    case MG_KIND_REQ: return "encode what is needed of it, as {method = req.method, path = req.path}";
    case MG_KIND_RES: return "encode what is needed of it, as {status = res.status}";
    case MG_KIND_CTX: return "encode ctx.ingress, ctx.config or ctx.state";
    case MG_KIND_UPSTREAM: return "it has functions only; what was chosen is res.upstream in header_filter and log";
    case MG_KIND_SHARED: return "encode the values that are needed, as {user = ctx.shared.user}";
    default: return "make a table of it: local t = {} for name, value in pairs(…) do t[name] = value end";
    }
}

void mg_push_data(lua_State *L, mg_vm *vm, int index) {
    uint64_t handle = mg_to_handle(L, index);
    mg_kind kind = mg_handle_kind(handle);
    if (kind >= MG_KIND_COUNT) kind = 0;
    if (kind != MG_KIND_INGRESS && kind != MG_KIND_CLIENT) {
        mg_api_error(L, "%s has no JSON; %s", mg_kind_names[kind], mg_in_place_of(kind));
    }
    mg_check_live(L, vm, handle);
    lua_newtable(L);
    for (int key = 1; key < MG_KEY_COUNT; key++) {
        const mg_member *member = &mg_members[kind][key];
        if (member->type != MG_MEMBER_FIELD) continue;
        mg_push_field(L, vm, (mg_field)member->value);
        lua_setfield(L, -2, mg_key_names[key]);
    }
}

// ------------------------------------------------------------------------------------------------ what objects are made of

uint32_t mg_object_count(void) { return MG_KIND_COUNT; }

const char *mg_object_name(uint32_t object) {
    return object > MG_KIND_NULL && object < MG_KIND_COUNT ? mg_kind_names[object] : NULL;
}

const char *mg_object_member(uint32_t object, uint32_t nth, mg_member_kind *is, uint32_t *child) {
    if (object >= MG_KIND_COUNT) return NULL;
    for (int key = 1; key < MG_KEY_COUNT; key++) {
        const mg_member *member = &mg_members[object][key];
        if (member->type == MG_MEMBER_NONE || nth-- > 0) continue;
        *is = member->type == MG_MEMBER_METHOD ? MG_IS_METHOD : MG_IS_FIELD;
        *child = member->type == MG_MEMBER_CHILD ? member->value : 0;
        return mg_key_names[key];
    }
    return NULL;
}

static int mg_object_tostring(lua_State *L) {
    mg_kind kind = mg_handle_kind(mg_to_handle(L, 1));
    lua_pushstring(L, kind < MG_KIND_COUNT ? mg_kind_names[kind] : "userdata");
    return 1;
}

static int mg_object_pairs(lua_State *L) {
    mg_kind kind = mg_handle_kind(mg_to_handle(L, 1));
    if (kind < MG_KIND_REQ_HEADERS || kind > MG_KIND_QUERY) {
        mg_api_error(L, "%s cannot be walked by pairs", kind < MG_KIND_COUNT ? mg_kind_names[kind] : "this value");
    }
    lua_settop(L, 1);
    mg_map_pairs(L);
    lua_pushnil(L);
    lua_pushnil(L);
    return 3;
}

void mg_open_objects(lua_State *L, mg_vm *vm) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_KEYS);
    for (int id = 1; id < MG_KEY_COUNT; id++) {
        lua_pushstring(L, mg_key_names[id]);
        const void *text = lua_topointer(L, -1);
        lua_rawseti(L, -2, id); // keeps it, and with it the pointer
        size_t slot = mg_key_slot(text);
        while (vm->keys[slot].text != NULL) slot = (slot + 1) & (MG_KEY_SLOTS - 1);
        vm->keys[slot].text = text;
        vm->keys[slot].id = (uint8_t)id;
    }
    lua_pop(L, 1);
    static const luaL_Reg events[] = {{"__index", mg_object_index},
                                      {"__newindex", mg_object_write},
                                      {"__tostring", mg_object_tostring},
                                      {"__pairs", mg_object_pairs},
                                      {NULL, NULL}};
    lua_pushlightuserdata(L, vm);
    luaL_newlib(L, events);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_pop(L, 1);
}
