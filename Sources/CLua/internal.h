// What the files of CLua share. No Swift sees this.
#ifndef MOONGATE_LUA_INTERNAL_H
#define MOONGATE_LUA_INTERNAL_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <string.h>

#include "moongate_lua.h"

// ------------------------------------------------------------------------------------------------------ constants

enum {
    MG_HOOK_INTERVAL = 1000,    // instructions between two looks at the clock, while no long string is alive
    MG_CREDIT = 16384,          // units of work (about a byte or a step each) between two looks, inside C functions
    MG_LONG_STRING = 4096,      // from here on a string can make one instruction slow; see mg_interval
    MG_LARGE_BLOCK = 32768,     // from here on a table can make one `next` slow; see mg_next
    MG_WARM_NS = 50000,         // what the instructions before the second sign of the hook count for at most
    MG_MAX_RESULTS = 4096,      // values that unpack, byte and codepoint return at most
    MG_MAX_CHAIN = 200,         // coroutines inside coroutines; Lua's own limit of C levels is 200
    MG_MAX_CLOSE_DEPTH = 8,     // closing inside closing; Lua 5.4.4 does not count these C levels
    MG_TREE_DEPTH = 64,         // nesting of JSON and of values that cross the border
    MG_TREE_VALUES = 65536,
    MG_TREE_BYTES = 1 << 20,    // of all strings inside of the tables of one call
    MG_JSON_LIMIT = 1 << 19,
    MG_SMALL = 512,             // allocations up to here come from size classes
    MG_GRAIN = 16,
    MG_CLASSES = MG_SMALL / MG_GRAIN,
    MG_SLAB = 16384,
    MG_SHORT_STRETCH_NS = 20000, // what a stretch between two waits counts for when its clock was not read
    MG_MAX_CHOICES = 16384,
    MG_KEY_SLOTS = 256,
    MG_MAX_HANDLE_CLASSES = 64,
    MG_LIBRARY_CREDIT = 256     // what making or resuming a coroutine costs in units of work
};

// ------------------------------------------------------------------------------------------------------------ mg_out

struct mg_out {
    mg_value *values;
    size_t count, capacity;
    char *bytes; // while building, `as.integer` of MG_BYTES is an offset into this
    size_t used, room;
    size_t weight; // bytes of strings inside of tables, borrowed ones too
    uint64_t work; // see mg_out_work
    int kept;      // of a tree for JSON: the place on the stack for what it borrows from; else 0
    bool failed;
};
void mg_out_free(mg_out *out);
void mg_out_function(mg_out *out);
// The bytes of a value while building.
static inline const char *mg_out_text(const mg_out *out, const mg_value *value) {
    return value->length > 0 ? out->bytes + value->as.integer : "";
}

// --------------------------------------------------------------------------------------------------------------- VM

typedef enum mg_yield { MG_YIELD_USER = 0, MG_YIELD_HOST, MG_YIELD_KILL } mg_yield;

typedef struct mg_slot {
    uint64_t generation;
    lua_State *co;       // of a suspended run
    lua_State **chain;   // the coroutines inside of it that wait for the host, the outermost first
    int chain_count;
    bool has_environment; // a suspended run that had written globals keeps them
    mg_phase phase;
    uint64_t cpu_used;   // by all phases of the request so far
    uint64_t wall_deadline;
    bool used, has_state;
    uint32_t next_free;
} mg_slot;

typedef struct mg_function {
    char name[48];
    uint32_t id, phases, class_id;
} mg_function;

typedef struct mg_key {
    const void *text; // the interned string: equal pointers are equal keys
    uint8_t id;
} mg_key;

struct mg_vm {
    // Hot: read by every call.
    mg_host host;
    void *host_context;
    void *run;             // of the running phase
    lua_State *running;    // the state whose instructions run
    int64_t credit;
    uint32_t phase_bit;
    mg_error_class killed; // sticky until the run is over
    mg_yield yield;
    uint32_t slot;         // of the running request
    mg_slot *slots;
    uint32_t slot_count, slot_capacity, slot_free;
    lua_State *main;
    lua_State *top;        // the pooled coroutine of the running phase
    mg_phase phase;
    mg_out out;            // results of callbacks
    mg_out arguments;      // arguments of callbacks
    mg_key keys[MG_KEY_SLOTS];

    // Budget.
    bool armed, warmed;
    uint64_t clock_warmed; // when the hook came first
    uint64_t cpu_budget, cpu_deadline, clock_next, wall_deadline;
    uint64_t cpu_armed, clock_armed; // both clocks when the deadline was set
    uint64_t off_cpu, cpu_reads;
    uint64_t cpu_limit, load_limit, close_limit;
    int interval;
    int close_depth;
    uint64_t refusals, refusals_seen;
    lua_State *chain[MG_MAX_CHAIN];
    int chain_count;

    // Memory.
    size_t memory, cap, string_cap, block_cap;
    size_t accounted; // of `memory`: what the host holds
    void *free_list[MG_CLASSES + 1];
    struct mg_slab *slabs;
    char *slab_next;
    size_t slab_left;
    uint32_t long_string_count, long_strings[64]; // alive, by the logarithm of their size
    uint32_t large_blocks[64]; // blocks that may be tables, likewise
    size_t walk;               // what one `next` costs in units of work, beside itself; 0 without a large block
    uint64_t allocations, fail_at;

    // What was loaded.
    lua_State *pool[8];
    int pool_count;
    bool compiled, loaded;
    uint32_t phases;
    size_t source_limit;
    bool environment_dirty; // a phase wrote a global: the next one gets fresh ones
    uint32_t waiting;       // suspended runs
    bool resume_error;
    int describe_depth;
    mg_function *functions;
    uint32_t function_count, function_capacity;
    char class_names[MG_MAX_HANDLE_CLASSES][32];
    bool class_released[MG_MAX_HANDLE_CLASSES];
    uint32_t class_count;  // classes are numbered from 1
    lua_CFunction stock_format, stock_upper, stock_lower, stock_reverse, stock_sub, stock_pack, stock_unpack,
        stock_packsize, stock_codepoint, stock_utf8len, stock_offset;

    struct mg_choice *choices; // scratch of the pattern matcher, which never runs twice at a time
    size_t choice_capacity;

    char *scratch;             // of JSON, likewise
    size_t scratch_used, scratch_room;

    mg_error error;
};

// Each thread's own word is the address of its machine. The lowest bit says that the thread is deaf: an error of the hook has
// ended it, and no hook is called in it any more, whatever it runs. Lua switches them back on only where a protected call of
// the same thread catches the error.
static inline uintptr_t *mg_word(lua_State *L) { return (uintptr_t *)lua_getextraspace(L); }
static inline mg_vm *mg_of(lua_State *L) { return (mg_vm *)(*mg_word(L) & ~(uintptr_t)1); }
static inline bool mg_is_deaf(lua_State *L) { return (*mg_word(L) & 1) != 0; }
static inline void mg_deafen(lua_State *L) { *mg_word(L) |= 1; }
static inline void mg_undeafen(lua_State *L) { *mg_word(L) &= ~(uintptr_t)1; }

// Registry references, fixed by the order in which mg_setup makes them.
enum {
    MG_REF_BASE = 64,      // frozen globals (the table itself, which no script can reach)
    MG_REF_SCRIPT_GLOBALS, // globals that the top level wrote; falls back to MG_REF_BASE
    MG_REF_EMPTY_META,     // metatable of the per-request globals
    MG_REF_MAIN,           // the compiled chunk
    MG_REF_SCRIPT,         // the table that it returned
    MG_REF_CONFIG,
    MG_REF_STATES,
    MG_REF_MODULES,        // name → compiled function
    MG_REF_LOADED,         // name → value
    MG_REF_API_ERROR,      // the last message that the API raised
    MG_REF_RESPONSE_META,
    MG_REF_ARRAY_META,
    MG_REF_CLASSES,        // class id → metatable of its handles
    MG_REF_MOONGATE,       // the table behind `moongate`
    MG_REF_KEYS,
    MG_REF_THREADS,        // keeps pooled coroutines
    MG_REF_ENVIRONMENT,    // the writable globals now in place
    MG_REF_PHASE           // + phase: its function
};

// ----------------------------------------------------------------------------------------------------------- budget

// Looks at the clocks; never returns when the budget is used up.
void mg_check(lua_State *L, mg_vm *vm);
static inline void mg_charge(lua_State *L, mg_vm *vm, size_t work) {
    vm->credit -= (int64_t)work + 1;
    if (vm->credit < 0) mg_check(L, vm);
}
// Pays for what a callback appended to `out` and said by mg_out_work.
static inline void mg_charge_out(lua_State *L, mg_vm *vm) {
    mg_charge(L, vm, (size_t)vm->out.work + vm->out.used + 16 * vm->out.count);
}
// lua_next, which walks over all the slots that were emptied: thousands in one step where a table is that large.
static inline int mg_next(lua_State *L, mg_vm *vm, int index) {
    if (vm->walk != 0) mg_charge(L, vm, vm->walk);
    return lua_next(L, index);
}
// Ends the run with that class; never returns. From C functions only (not from the hook).
_Noreturn void mg_kill(lua_State *L, mg_vm *vm, mg_error_class kind);
// Continues a kill that is under way.
_Noreturn void mg_rethrow(lua_State *L, mg_vm *vm);
void mg_hook(lua_State *L, lua_Debug *ar);
int mg_interval(const mg_vm *vm);
// Closes what a dead or waiting thread holds (lua_resetthread), and has nothing to do with one that is deaf: what its
// variables run would never be ended.
int mg_reset(lua_State *co);
void mg_sync_hook(lua_State *L, const mg_vm *vm);
// A table that stands for several strings has them in its list; one with nothing but keys is a slip.
void mg_check_list(lua_State *L, int index, const char *name);
// True when an error that was caught must not be shown to the script; sets `killed`.
bool mg_fatal(lua_State *L, mg_vm *vm, int status, int error_index);

// ------------------------------------------------------------------------------------------------------------ errors

// Raises an error of class `api` at the script's line.
_Noreturn void mg_api_error(lua_State *L, const char *format, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void mg_api_error_bytes(lua_State *L, const char *message, size_t length);
// Raises what a callback put into `out`.
_Noreturn void mg_host_error(lua_State *L, mg_vm *vm);
// Position of the innermost line of the script, "file:line: ", pushed.
void mg_where(lua_State *L);
void mg_capture_frames(mg_vm *vm, lua_State *L);
const char *mg_phase_name(mg_phase phase);

// ----------------------------------------------------------------------------------------------------------- helpers

extern char mg_frozen_key; // its address marks the metatable of a frozen proxy; the value is the table behind it

// Replaces the table on the top of the stack by a read-only proxy of it.
void mg_freeze(lua_State *L, const char *name);
// If the value at the index is a frozen proxy, replaces it by the table behind; true then.
bool mg_unwrap(lua_State *L, int index);
// Pushes the text of a value without addresses, as tostring does.
const char *mg_tostring(lua_State *L, int index, size_t *length);
// Appends the value at the index as a tree. With `borrow`, bytes are pointers into Lua's strings, which live as long as
// the value is on the stack and no code of the script runs; otherwise they are copied.
void mg_marshal(lua_State *L, mg_vm *vm, int index, mg_out *out, bool borrow);
// Pushes the first value of `out`.
void mg_push_first(lua_State *L, mg_vm *vm, mg_out *out);
// Pushes the tree at values[*at] and moves on. Offsets relative to `bytes` when it is not NULL. `frozen` is what a write
// into a table of it calls that table; NULL makes plain tables.
void mg_push_tree(lua_State *L, mg_vm *vm, const mg_value *values, size_t count, size_t *at, const char *bytes,
                  const char *frozen);
// Pushes the values of `out` as results; returns how many.
int mg_push_results(lua_State *L, mg_vm *vm, mg_out *out);

int mg_call_function(lua_State *L);
int mg_release_handle(lua_State *L);
// Pushes the fields of a request's object at the index as a table; an error for an object that is no data.
void mg_push_data(lua_State *L, mg_vm *vm, int index);
// Refuses outside of the phases given.
void mg_need_phase(lua_State *L, mg_vm *vm, uint32_t phases, const char *what);

// Library parts, each run inside the protected set-up; leave the stack as they found it.
void mg_open_base(lua_State *L, mg_vm *vm);
void mg_open_string(lua_State *L, mg_vm *vm);
void mg_open_table(lua_State *L, mg_vm *vm);
void mg_open_coroutine(lua_State *L, mg_vm *vm);
void mg_open_objects(lua_State *L, mg_vm *vm);
void mg_open_module(lua_State *L, mg_vm *vm);

// pattern.c
int mg_str_find(lua_State *L);
int mg_str_match(lua_State *L);
int mg_str_gmatch(lua_State *L);
int mg_str_gsub(lua_State *L);
// json.c
int mg_json_encode(lua_State *L);
int mg_json_decode(lua_State *L);
int mg_json_array(lua_State *L);
int mg_json_respond(lua_State *L);
// Pushes the encoding of the value at the index.
void mg_json_push(lua_State *L, mg_vm *vm, int index);

// ----------------------------------------------------------------------------------------------------------- handles

// The fixed objects are light userdata: kind, slot of the request, its generation. They cost nothing to make, cannot be
// forged by a script, and a stale one is recognised because the slot's generation has moved on.
typedef enum mg_kind {
    MG_KIND_NULL = 1, // moongate.json.null
    MG_KIND_REQ,
    MG_KIND_RES,
    MG_KIND_CTX,
    MG_KIND_REQ_HEADERS,
    MG_KIND_RES_HEADERS,
    MG_KIND_REQ_COOKIES,
    MG_KIND_RES_COOKIES,
    MG_KIND_QUERY,
    MG_KIND_CLIENT,
    MG_KIND_UPSTREAM,
    MG_KIND_SHARED,
    MG_KIND_INGRESS,
    MG_KIND_COUNT
} mg_kind;

#define MG_GENERATION_BITS 40
#define MG_GENERATION_MASK ((UINT64_C(1) << MG_GENERATION_BITS) - 1)
static inline uint64_t mg_handle(mg_kind kind, uint32_t slot, uint64_t generation) {
    return ((uint64_t)kind << 56) | ((uint64_t)(slot & 0xffff) << MG_GENERATION_BITS) |
           (generation & MG_GENERATION_MASK);
}
static inline mg_kind mg_handle_kind(uint64_t handle) { return (mg_kind)(handle >> 56); }
static inline uint32_t mg_handle_slot(uint64_t handle) { return (uint32_t)(handle >> MG_GENERATION_BITS) & 0xffff; }
static inline void mg_push_handle(lua_State *L, uint64_t handle) {
    lua_pushlightuserdata(L, (void *)(uintptr_t)handle);
}
static inline bool mg_is_null(lua_State *L, int index) {
    return lua_islightuserdata(L, index) && (uint64_t)(uintptr_t)lua_touserdata(L, index) == (uint64_t)MG_KIND_NULL << 56;
}

// A handle of the host inside a full userdata.
typedef struct mg_box {
    uint64_t handle;
    uint32_t class_id;
} mg_box;
// The box at the index, or NULL.
mg_box *mg_to_box(lua_State *L, int index);

#endif
