// CLua: the border between Moongate and the distribution's Lua 5.4.
//
// Part in the walk of a request: a phase of a script is one call of `mg_run` on the VM of that script, on the event
// loop of the request. Everything that a script can reach is made here, in C, because a Lua error is a longjmp and must
// never cross a Swift frame:
//   * Swift calls into Lua only through the functions of this header. Each is protected; none lets a Lua error out.
//   * Lua calls Swift only through the callbacks of `mg_host`. They get plain pointers and lengths, put their results
//     into an `mg_out`, and return; the trampoline then pushes, raises or yields. No callback sees a `lua_State`.
//   * Bytes given to a callback live until it returns. Bytes given to `mg_out_bytes` are copied.
// A VM belongs to one thread: one VM per (namespace, script version, event loop).
#ifndef MOONGATE_LUA_H
#define MOONGATE_LUA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mg_vm mg_vm;
typedef struct mg_out mg_out;

// ---------------------------------------------------------------------------------------------------------- values

// A Lua value as it crosses the border. Trees are flat and in preorder: a table is one value (MG_LIST with `length`
// items, or MG_MAP with `length` pairs of key and value) followed by its content.
typedef enum mg_tag {
    MG_NIL = 0,
    MG_BOOL,   // number.integer is 0 or 1
    MG_INT,
    MG_NUM,
    MG_BYTES,  // bytes, length
    MG_HANDLE, // length is the class (see mg_vm_define_class), number.handle the host's own identifier
    MG_LIST,   // length items follow
    MG_MAP,    // length pairs follow, sorted by key when they come from Lua
    MG_NULL,   // moongate.json.null
    MG_FUNCTION // only from Lua to Swift: something that has no value outside (function, thread, …)
} mg_tag;

typedef struct mg_value {
    uint32_t tag;
    uint32_t length;
    union {
        int64_t integer;
        double number;
        uint64_t handle;
        const char *bytes;
    } as;
} mg_value;

// The results of a callback (or of `mg_vm_describe`). Values are appended in preorder.
void mg_out_nil(mg_out *out);
void mg_out_null(mg_out *out);
void mg_out_bool(mg_out *out, bool value);
void mg_out_int(mg_out *out, int64_t value);
void mg_out_num(mg_out *out, double value);
void mg_out_bytes(mg_out *out, const void *bytes, size_t length);
void mg_out_handle(mg_out *out, uint32_t class_id, uint64_t handle);
void mg_out_list(mg_out *out, uint32_t items);  // then append that many items
void mg_out_map(mg_out *out, uint32_t pairs);   // then append that many keys and values
// Says how much work the callback did beside the bytes that it appended (about a byte looked at or a step each); the
// run pays for both once it has returned.
void mg_out_work(mg_out *out, uint64_t work);
// Forgets what was appended.
void mg_out_clear(mg_out *out);
// What was appended; valid until the next call on the VM.
const mg_value *mg_out_values(mg_out *out, size_t *count);

// --------------------------------------------------------------------------------------------- host callbacks

typedef enum mg_phase {
    MG_PHASE_LOAD = 0, // the top level of the chunk
    MG_PHASE_INIT,
    MG_PHASE_REWRITE,
    MG_PHASE_ACCESS,
    MG_PHASE_ROUTE,
    MG_PHASE_HEADER_FILTER,
    MG_PHASE_LOG,
    MG_PHASE_COUNT
} mg_phase;
#define MG_PHASE_BIT(phase) (1u << (phase))
#define MG_PHASES_REQUEST \
    (MG_PHASE_BIT(MG_PHASE_REWRITE) | MG_PHASE_BIT(MG_PHASE_ACCESS) | MG_PHASE_BIT(MG_PHASE_ROUTE))
#define MG_PHASES_RUNNING (MG_PHASES_REQUEST | MG_PHASE_BIT(MG_PHASE_HEADER_FILTER) | MG_PHASE_BIT(MG_PHASE_LOG))
#define MG_PHASES_ALL (MG_PHASES_RUNNING | MG_PHASE_BIT(MG_PHASE_LOAD) | MG_PHASE_BIT(MG_PHASE_INIT))

// Beside the phases of a function: it may answer MG_HOST_SUSPEND. It is refused before the call where it could not wait.
#define MG_MAY_SUSPEND 0x80000000u

// Plain fields of the fixed objects.
typedef enum mg_field {
    MG_REQ_ID = 0,
    MG_REQ_METHOD,
    MG_REQ_SCHEME,
    MG_REQ_HOST,         // assignable in rewrite, access, route
    MG_REQ_PATH,         // assignable in rewrite
    MG_REQ_RAW_PATH,
    MG_REQ_HTTP_VERSION,
    MG_REQ_BEARER,       // req:bearer()
    MG_QUERY_STRING,     // req.query:tostring()
    MG_CLIENT_IP,
    MG_CLIENT_PORT,
    MG_CLIENT_TRUSTED_PROXY,
    MG_CLIENT_TLS,       // a map, or nil without TLS
    MG_RES_STATUS,       // assignable in header_filter
    MG_RES_ORIGIN,
    MG_RES_UPSTREAM,     // a map {backend, address, attempts, duration}; scripts see an empty one for nil
    MG_INGRESS_NAMESPACE,
    MG_INGRESS_NAME,
    MG_INGRESS_RULE,
    MG_CTX_DEADLINE,     // ctx:deadline(): seconds left, or nil
    MG_FIELD_COUNT
} mg_field;

// The multimaps.
typedef enum mg_map {
    MG_REQ_HEADERS = 0,
    MG_RES_HEADERS,
    MG_REQ_COOKIES, // read-only for scripts
    MG_RES_COOKIES,
    MG_QUERY
} mg_map;

typedef enum mg_edit { MG_EDIT_SET = 0, MG_EDIT_APPEND, MG_EDIT_REMOVE } mg_edit;

typedef enum mg_upstream_op {
    MG_UPSTREAM_USE = 0,
    MG_UPSTREAM_HASH_KEY,
    MG_UPSTREAM_TIMEOUT,
    MG_UPSTREAM_RETRIES
} mg_upstream_op;

// What a callback says. On MG_HOST_ERROR the one value in `out` is the message (bytes); it is raised at the script's
// line with class `api`. MG_HOST_SUSPEND is for module functions only: the run ends as MG_SUSPENDED, and `mg_resume`
// gives the function its results.
typedef enum mg_host_status {
    MG_HOST_OK = 0,
    MG_HOST_ERROR = 1,
    MG_HOST_SUSPEND = 2,
    // Module functions only: there is no room for another object. Garbage is collected and the function called once
    // more; what it then has in `out` are its results, also with this status.
    MG_HOST_CROWDED = 3,
    // `unit` only: a source that is known and not there in this version; `out` says so. Another source may serve.
    MG_HOST_UNAVAILABLE = 4
} mg_host_status;

// A name and a value; bytes live until the callback returns.
typedef struct mg_pair {
    const char *name;
    size_t name_length;
    const char *value;
    size_t value_length;
} mg_pair;

// `run` is the pointer that `mg_run` was given. Readers return true and append one value, or return false for nil.
typedef struct mg_host {
    bool (*field_get)(void *run, mg_field field, mg_out *out);
    mg_host_status (*field_set)(void *run, mg_field field, const mg_value *value, mg_out *out);
    // The next value of a name, from the cursor on, which is moved behind it: 0 is before the first.
    bool (*map_get)(void *run, mg_map map, const char *name, size_t length, uint64_t *cursor, mg_out *out);
    // The next entry in wire order, likewise, as two values: name, value.
    bool (*map_entry)(void *run, mg_map map, uint64_t *cursor, mg_out *out);
    mg_host_status (*map_edit)(
        void *run, mg_map map, mg_edit edit, const char *name, size_t name_length, const char *value,
        size_t value_length, mg_out *out);
    // res.cookies:set(name, value, attributes): `attributes` is one MG_MAP tree or MG_NIL; value NULL removes.
    mg_host_status (*cookie_set)(
        void *run, const char *name, size_t name_length, const char *value, size_t value_length,
        const mg_value *attributes, size_t count, mg_out *out);
    // One source of req:unit{…}, for example "cookie:uid".
    mg_host_status (*unit)(void *run, const char *source, size_t length, mg_out *out);
    mg_host_status (*tag)(void *run, const char *key, size_t key_length, const mg_value *value, mg_out *out);
    mg_host_status (*upstream)(
        void *run, mg_upstream_op operation, const mg_value *arguments, size_t count, mg_out *out);
    bool (*shared_get)(void *run, const char *key, size_t length, mg_out *out);
    // One tree.
    mg_host_status (*shared_set)(
        void *run, const char *key, size_t length, const mg_value *values, size_t count, mg_out *out);
    // The response that the phase returned. Refusing it (a bad header name) is an `api` error of the script.
    mg_host_status (*respond)(
        void *run, int64_t status, const mg_pair *headers, size_t count, const char *body, size_t body_length,
        mg_out *out);
    // Judges a header field before it goes into a response object, so that the error names the script's line.
    mg_host_status (*check_field)(
        void *host, const char *name, size_t name_length, const char *value, size_t value_length, mg_out *out);
    // A module function or a method of a handle (then argument 0 is the handle). `run` is NULL outside of a request.
    // Arguments are trees, one after the other; `count` is the number of values in all, `arity` the number of
    // arguments. Results: trees appended to `out`, as many as the function returns.
    mg_host_status (*call)(
        void *host, void *run, uint32_t function, const mg_value *arguments, size_t count, uint32_t arity, mg_out *out);
    // The collector, or the end of the VM, let go of a handle of a class with `released`.
    void (*release)(void *host, uint32_t class_id, uint64_t handle);
} mg_host;

// ------------------------------------------------------------------------------------------------------ life of a VM

typedef struct mg_limits {
    size_t memory;             // bytes for the whole VM; 0: 8 MiB
    uint64_t cpu_ns;           // for all phases of one request; 0: 5 ms
    uint64_t load_cpu_ns;      // for the top level and init; 0: 100 ms
    uint64_t close_cpu_ns;     // for to-be-closed variables of a killed script; 0: 1 ms
    size_t source;             // bytes of one chunk; 0: 256 KiB
} mg_limits;

// NULL when memory ran out. `host` is copied; `host_context` goes to `call`, `check_field` and `release`.
mg_vm *mg_vm_create(const mg_limits *limits, const mg_host *host, void *host_context);
// Must not be called from a callback.
void mg_vm_destroy(mg_vm *vm);

// A class of handles: a name for messages, the text of tostring comes from `__tostring` when the host defines a method
// of that name. With `released`, the host is told when Lua let go of a handle. Returns the class id, 0 when refused.
uint32_t mg_vm_define_class(mg_vm *vm, const char *name, bool released);
// A module function, under a dotted name below `moongate` ("hash.sha256"), allowed in the phases given.
bool mg_vm_define_function(mg_vm *vm, const char *name, uint32_t function, uint32_t phases);
// A method of a class.
bool mg_vm_define_method(mg_vm *vm, uint32_t class_id, const char *name, uint32_t function, uint32_t phases);

typedef enum mg_error_class {
    MG_ERROR_NONE = 0,
    MG_ERROR_RUNTIME, // also syntax
    MG_ERROR_CPU,
    MG_ERROR_MEMORY,
    MG_ERROR_WALL,
    MG_ERROR_API // refused by a function or setter of ours
} mg_error_class;

#define MG_ERROR_FRAMES 12
typedef struct mg_frame {
    char file[64];
    char function[64]; // empty when unknown
    int32_t line;
} mg_frame;

typedef struct mg_error {
    mg_error_class kind;
    int32_t line;          // 0 when no line of the script is to blame
    int32_t frame_count;   // the innermost call first
    char file[64];
    char message[1024];    // as Lua says it, with file:line when known; never an address
    mg_frame frames[MG_ERROR_FRAMES];
} mg_error;

// Valid until the next call on the VM.
const mg_error *mg_vm_error(const mg_vm *vm);

// Another file of the same ConfigMap, for require(name). Compiled now (text only), run at the first require. Of one that does
// not compile, require says why, unless that is to be known at once.
bool mg_vm_add_module(mg_vm *vm, const char *name, const char *file, const char *source, size_t length,
                      bool must_compile);
// Compiles the chunk (text only) without running it. `file` is what messages call it.
bool mg_vm_compile(mg_vm *vm, const char *file, const char *source, size_t length);
// Runs the top level, which must return the table of phases.
bool mg_vm_load(mg_vm *vm);
// The objects of a request, for whoever looks at a script without running it. They are numbered from 0; some numbers have
// no name, and those from mg_object_count on do not exist.
typedef enum mg_member_kind { MG_IS_FIELD, MG_IS_METHOD } mg_member_kind;
uint32_t mg_object_count(void);
// As scripts write it: `req`, `ctx.ingress`. NULL without a name.
const char *mg_object_name(uint32_t object);
// The name of the nth member and what it is: an object of its own where `child` is not 0. NULL beyond the last.
const char *mg_object_member(uint32_t object, uint32_t nth, mg_member_kind *is, uint32_t *child);

// Bits of the phases that the script has (MG_PHASE_BIT). Zero before mg_vm_load.
uint32_t mg_vm_phases(const mg_vm *vm);
// A field of the script's table as a tree ("config", "on_error"); functions in it become MG_FUNCTION.
// Without a key, the list of the table's keys, in no order; one that is no string is told as [type].
// NULL on failure, see mg_vm_error.
mg_out *mg_vm_describe(mg_vm *vm, const char *key);
// An empty list of values to append to, for mg_vm_configure and mg_resume; valid until the next call on the VM.
mg_out *mg_vm_scratch(mg_vm *vm);
// Builds ctx.config, frozen, from a tree (which may be that of mg_vm_scratch).
bool mg_vm_configure(mg_vm *vm, const mg_value *values, size_t count);
// Runs init(conf) if there is one.
bool mg_vm_init(mg_vm *vm);

// --------------------------------------------------------------------------------------------------------- requests

// A request as this VM sees it: its handles (req, res, ctx), ctx.state. 0 when memory ran out.
typedef uint32_t mg_request;
mg_request mg_request_begin(mg_vm *vm);
// Every handle of the request becomes stale. A suspended run is closed first.
void mg_request_end(mg_vm *vm, mg_request request);

typedef enum mg_outcome {
    MG_NEXT = 0,  // the phase returned nothing (or the script does not have it)
    MG_RESPONDED, // `respond` was called with the response
    MG_SUSPENDED, // a host function waits: mg_resume, or mg_request_end
    MG_FAILED     // see mg_vm_error
} mg_outcome;

// Runs a phase. `run` goes to the callbacks. `wall_deadline_ns` is on CLOCK_MONOTONIC; 0: none.
mg_outcome mg_run(mg_vm *vm, mg_request request, mg_phase phase, void *run, uint64_t wall_deadline_ns);
// Goes on after the values in `mg_vm_scratch`: the results of the function that suspended, or with `error` its message.
mg_outcome mg_resume(mg_vm *vm, mg_request request, void *run, bool error);
// Ends a suspended run, closing its variables; mg_vm_error tells `kind`.
void mg_cancel(mg_vm *vm, mg_request request, mg_error_class kind);

// --------------------------------------------------------------------------------- work and memory of host functions

// Inside of `call`: counts work done (about a byte or a step each) against the budget of the run, and looks at the clock
// now and then. False once the budget is used up: the function must return, and the run ends whatever it returns.
bool mg_vm_charge(mg_vm *vm, uint64_t work);
// Counts memory that the host holds for the script (negative: lets go of) against the VM's cap.
void mg_vm_account(mg_vm *vm, int64_t bytes);

// ------------------------------------------------------------------------------------------------- seeing and testing

typedef struct mg_vm_facts {
    size_t memory;        // what the script holds, with what was accounted for it
    size_t memory_limit;  // the cap of it
    uint64_t allocations;
    // How long, of the last run or stretch of one, its thread did not run; 0 for one too short for its CPU clock to be
    // read.
    uint64_t off_cpu;
    uint64_t cpu_reads;   // how often the thread's CPU clock was read: each costs a system call
} mg_vm_facts;
mg_vm_facts mg_vm_look(const mg_vm *vm);
// Collects all garbage. Not during a run.
void mg_vm_collect(mg_vm *vm);
// The release of Lua in use ("Lua 5.4.4").
const char *mg_lua_release(void);
// CLOCK_MONOTONIC, which wall deadlines are on.
uint64_t mg_clock_ns(void);
// CPU time that this thread has used.
uint64_t mg_thread_cpu_ns(void);
// Tests: the nth allocation from now (1: the next) that asks for more fails, and every later one; 0 switches it off.
void mg_vm_fail_allocation(mg_vm *vm, uint64_t nth);
// Tests: also define the stock string and table functions under `stock`, for differential runs.
bool mg_vm_define_stock(mg_vm *vm);

#endif
