// The Lua machine: memory, budget, the protected entry points, and the runs of phases.
//
// A run is a call of the phase's function in a pooled coroutine, so that the count hook can end it by a yield, which no
// pcall catches (SCRIPTING.md §12). Nothing here allocates on the path of a run that does no more than read a header.
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

char mg_frozen_key;

// ------------------------------------------------------------------------------------------------------------ memory

// Under AddressSanitizer every block is the system's own, so that it sees each overrun.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MG_POOLED 0
#endif
#endif
#ifndef MG_POOLED
#define MG_POOLED 1
#endif

struct mg_slab {
    struct mg_slab *next;
    char padding[8]; // keeps blocks aligned to 16
};

// Blocks beyond the size classes carry their kind, because Lua names it only when it allocates.
typedef struct mg_header {
    uint64_t is_string;
    uint64_t size;
} mg_header;

static bool mg_is_small(size_t size) { return MG_POOLED && size <= MG_SMALL; }

static void *mg_small_take(mg_vm *vm, size_t size) {
    size_t class = (size + MG_GRAIN - 1) / MG_GRAIN;
    void *block = vm->free_list[class];
    if (block != NULL) {
        memcpy(&vm->free_list[class], block, sizeof(void *));
        return block;
    }
    size_t bytes = class * MG_GRAIN;
    if (vm->slab_left < bytes) {
        // What is left of the old slab goes to the list of its own size.
        if (vm->slab_left >= MG_GRAIN) {
            size_t rest = vm->slab_left / MG_GRAIN;
            memcpy(vm->slab_next, &vm->free_list[rest], sizeof(void *));
            vm->free_list[rest] = vm->slab_next;
        }
        struct mg_slab *slab = malloc(MG_SLAB);
        vm->slab_left = 0;
        if (slab == NULL) return NULL;
        slab->next = vm->slabs;
        vm->slabs = slab;
        vm->slab_next = (char *)(slab + 1);
        vm->slab_left = MG_SLAB - sizeof(struct mg_slab);
    }
    block = vm->slab_next;
    vm->slab_next += bytes;
    vm->slab_left -= bytes;
    return block;
}

static void mg_small_give(mg_vm *vm, void *block, size_t size) {
    size_t class = (size + MG_GRAIN - 1) / MG_GRAIN;
    memcpy(block, &vm->free_list[class], sizeof(void *));
    vm->free_list[class] = block;
}

static int mg_size_log(size_t size) { return 63 - __builtin_clzll((unsigned long long)size); }

static void mg_forget_string(mg_vm *vm, size_t size) {
    vm->long_strings[mg_size_log(size)]--;
    vm->long_string_count--;
}

// Lua tells neither the size of a table nor how many of its slots are empty: the largest block that is alive bounds both.
static void mg_count_block(mg_vm *vm, size_t size, bool alive) {
    if (size < MG_LARGE_BLOCK) return;
    int log = mg_size_log(size);
    if (alive) vm->large_blocks[log]++;
    else vm->large_blocks[log]--;
    if (vm->large_blocks[log] > 1) return;
    vm->walk = 0;
    for (log = mg_size_log(vm->block_cap) + 1; log >= 15; log--) {
        if (log < 64 && vm->large_blocks[log] > 0) {
            vm->walk = (size_t)1 << (log - 6);
            return;
        }
    }
}

static void mg_forget_block(mg_vm *vm, const mg_header *header) {
    if (header->is_string) mg_forget_string(vm, header->size);
    else mg_count_block(vm, header->size, false);
}

// One instruction is not a unit of time: comparing two long strings takes as long as a million additions. So the
// longer the longest living string, the fewer instructions pass between two looks at the clock.
int mg_interval(const mg_vm *vm) {
    if (vm->killed != MG_ERROR_NONE || vm->refusals != vm->refusals_seen) return 1;
    if (vm->long_string_count == 0) return MG_HOOK_INTERVAL;
    for (int log = mg_size_log(vm->string_cap) + 1; log >= 12; log--) {
        if (log < 64 && vm->long_strings[log] > 0) {
            int interval = MG_HOOK_INTERVAL >> (log - 10);
            return interval > 1 ? interval : 1;
        }
    }
    return MG_HOOK_INTERVAL;
}

void mg_sync_hook(lua_State *L, const mg_vm *vm) {
    if (lua_gethookcount(L) != vm->interval) lua_sethook(L, mg_hook, LUA_MASKCOUNT, vm->interval);
}

// Called from inside an allocation: lua_sethook is made to be called at any moment.
static void mg_tighten(mg_vm *vm) {
    int interval = mg_interval(vm);
    if (interval >= vm->interval) return;
    vm->interval = interval;
    if (vm->running != NULL) lua_sethook(vm->running, mg_hook, LUA_MASKCOUNT, interval);
}

static void *mg_allocate(void *context, void *pointer, size_t old_size, size_t new_size) {
    mg_vm *vm = context;
    size_t kind = 0;
    if (pointer == NULL) {
        kind = old_size;
        old_size = 0;
    }
    if (new_size == 0) {
        if (pointer == NULL) return NULL;
        vm->memory -= old_size;
        if (mg_is_small(old_size)) {
            mg_small_give(vm, pointer, old_size);
        } else {
            mg_header *header = (mg_header *)pointer - 1;
            mg_forget_block(vm, header);
            free(header);
        }
        return NULL;
    }
    bool is_string = false;
    if (new_size > old_size) {
        vm->allocations++;
        size_t limit = pointer == NULL && kind == LUA_TSTRING ? vm->string_cap : vm->block_cap;
        if (new_size > limit || vm->memory + (new_size - old_size) > vm->cap ||
            (vm->fail_at != 0 && vm->allocations >= vm->fail_at)) {
            // Lua collects garbage and asks once more. The clock is looked at after this very instruction, because a
            // script that lives at its limit makes every allocation a full collection.
            vm->refusals++;
            mg_tighten(vm);
            return NULL;
        }
        is_string = pointer == NULL && kind == LUA_TSTRING && new_size >= MG_LONG_STRING;
    }
    void *block = NULL;
    if (mg_is_small(new_size)) {
        if (pointer != NULL && mg_is_small(old_size) &&
            (old_size + MG_GRAIN - 1) / MG_GRAIN == (new_size + MG_GRAIN - 1) / MG_GRAIN) {
            vm->memory += new_size - old_size;
            return pointer;
        }
        block = mg_small_take(vm, new_size);
        // Lua relies on shrinking never to fail: then the block stays where it is, and serves as one of its new class.
        if (block == NULL && pointer != NULL && new_size < old_size) {
            vm->memory -= old_size - new_size;
            return pointer;
        }
        if (block == NULL) return NULL;
    } else if (pointer != NULL && !mg_is_small(old_size)) {
        mg_header *header = realloc((mg_header *)pointer - 1, sizeof(mg_header) + new_size);
        if (header == NULL) {
            if (new_size > old_size) return NULL;
            header = (mg_header *)pointer - 1;
        }
        mg_forget_block(vm, header);
        header->is_string = 0;
        header->size = new_size;
        mg_count_block(vm, new_size, true);
        vm->memory = vm->memory + new_size - old_size;
        return header + 1;
    } else {
        mg_header *header = malloc(sizeof(mg_header) + new_size);
        if (header == NULL) return NULL;
        header->is_string = is_string;
        header->size = new_size;
        block = header + 1;
        if (is_string) {
            vm->long_strings[mg_size_log(new_size)]++;
            vm->long_string_count++;
            mg_tighten(vm);
        } else {
            mg_count_block(vm, new_size, true);
        }
    }
    if (pointer != NULL) {
        memcpy(block, pointer, old_size < new_size ? old_size : new_size);
        if (mg_is_small(old_size)) {
            mg_small_give(vm, pointer, old_size);
        } else {
            mg_header *header = (mg_header *)pointer - 1;
            mg_forget_block(vm, header);
            free(header);
        }
    }
    vm->memory = vm->memory + new_size - old_size;
    return block;
}

// ------------------------------------------------------------------------------------------------------------ mg_out

static bool mg_out_grow(mg_out *out, size_t bytes) {
    if (out->failed) return false;
    if (out->count == out->capacity) {
        size_t capacity = out->capacity == 0 ? 64 : out->capacity * 2;
        mg_value *values = realloc(out->values, capacity * sizeof(mg_value));
        if (values == NULL) {
            out->failed = true;
            return false;
        }
        out->values = values;
        out->capacity = capacity;
    }
    if (out->room - out->used < bytes) {
        size_t room = out->room == 0 ? 1024 : out->room;
        while (room - out->used < bytes) room *= 2;
        char *text = realloc(out->bytes, room);
        if (text == NULL) {
            out->failed = true;
            return false;
        }
        out->bytes = text;
        out->room = room;
    }
    return true;
}

static void mg_out_append(mg_out *out, mg_tag tag, uint32_t length, int64_t integer) {
    if (out->count == out->capacity && !mg_out_grow(out, 0)) return;
    mg_value *value = &out->values[out->count++];
    value->tag = tag;
    value->length = length;
    value->as.integer = integer;
}

void mg_out_nil(mg_out *out) { mg_out_append(out, MG_NIL, 0, 0); }
void mg_out_null(mg_out *out) { mg_out_append(out, MG_NULL, 0, 0); }
void mg_out_bool(mg_out *out, bool value) { mg_out_append(out, MG_BOOL, 0, value ? 1 : 0); }
void mg_out_int(mg_out *out, int64_t value) { mg_out_append(out, MG_INT, 0, value); }
void mg_out_function(mg_out *out) { mg_out_append(out, MG_FUNCTION, 0, 0); }
void mg_out_list(mg_out *out, uint32_t items) { mg_out_append(out, MG_LIST, items, 0); }
void mg_out_map(mg_out *out, uint32_t pairs) { mg_out_append(out, MG_MAP, pairs, 0); }

void mg_out_num(mg_out *out, double value) {
    int64_t bits;
    memcpy(&bits, &value, sizeof bits);
    mg_out_append(out, MG_NUM, 0, bits);
}

void mg_out_handle(mg_out *out, uint32_t class_id, uint64_t handle) {
    mg_out_append(out, MG_HANDLE, class_id, (int64_t)handle);
}

void mg_out_bytes(mg_out *out, const void *bytes, size_t length) {
    if (length > UINT32_MAX || ((out->room - out->used < length || out->count == out->capacity) &&
                                !mg_out_grow(out, length))) {
        out->failed = true;
        return;
    }
    if (length > 0) memcpy(out->bytes + out->used, bytes, length);
    mg_out_append(out, MG_BYTES, (uint32_t)length, (int64_t)out->used);
    out->used += length;
}

void mg_out_work(mg_out *out, uint64_t work) { out->work += work; }

void mg_out_clear(mg_out *out) {
    out->count = 0;
    out->used = 0;
    out->weight = 0;
    out->work = 0;
    out->kept = 0;
    out->failed = false;
    // A rare large answer must not stay for the life of the VM.
    if (out->room > 1 << 18) {
        free(out->bytes);
        out->bytes = NULL;
        out->room = 0;
    }
}

void mg_out_free(mg_out *out) {
    free(out->values);
    free(out->bytes);
    memset(out, 0, sizeof *out);
}

const mg_value *mg_out_values(mg_out *out, size_t *count) {
    for (size_t i = 0; i < out->count; i++) {
        mg_value *value = &out->values[i];
        if (value->tag == MG_BYTES) value->as.bytes = value->length > 0 ? out->bytes + value->as.integer : "";
    }
    *count = out->failed ? 0 : out->count;
    return out->values;
}

// ------------------------------------------------------------------------------------------------------------ budget

uint64_t mg_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t mg_thread_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// The thread's CPU clock is a system call, so a run does not read it before it has done more than a thousand instructions
// or some KiB of work. What came before counts by the other clock, up to a bound, for the thread may have been waiting.
static void mg_arm(mg_vm *vm) {
    vm->cpu_reads++;
    vm->cpu_armed = mg_thread_cpu_ns();
    vm->clock_armed = mg_clock_ns();
    vm->armed = true;
    if (vm->warmed) {
        uint64_t before = vm->clock_armed - vm->clock_warmed;
        if (before > MG_WARM_NS) before = MG_WARM_NS;
        if (before > vm->cpu_armed) before = vm->cpu_armed;
        vm->cpu_armed -= before;
        vm->clock_armed -= before;
    }
    vm->cpu_deadline = vm->cpu_armed + vm->cpu_budget;
    vm->clock_next = vm->clock_armed + vm->cpu_budget;
}

// What a run used counts against the next phases of its request. A run that was not armed was too short to tell, and
// costs no system call here either.
static void mg_settle_time(mg_vm *vm, mg_slot *slot) {
    if (!vm->armed) return;
    vm->cpu_reads++;
    uint64_t cpu = mg_thread_cpu_ns() - vm->cpu_armed;
    uint64_t clock = mg_clock_ns() - vm->clock_armed;
    slot->cpu_used += cpu;
    vm->off_cpu = clock > cpu ? clock - cpu : 0;
}

static bool mg_over(mg_vm *vm) {
    if (vm->killed != MG_ERROR_NONE) return true;
    if (vm->refusals != vm->refusals_seen) {
        // Lua asked for more, collected, and went on or not: a script that keeps nearly everything is at its limit.
        vm->refusals_seen = vm->refusals;
        if (vm->memory > vm->cap - vm->cap / 16) {
            vm->killed = MG_ERROR_MEMORY;
            return true;
        }
    }
    if (!vm->armed) mg_arm(vm);
    uint64_t now = mg_clock_ns();
    if (vm->wall_deadline != 0 && now >= vm->wall_deadline) {
        vm->killed = MG_ERROR_WALL;
        return true;
    }
    // CPU time never runs faster than the wall clock, which is cheap to read.
    if (now < vm->clock_next) return false;
    vm->cpu_reads++;
    uint64_t cpu = mg_thread_cpu_ns();
    if (cpu >= vm->cpu_deadline) {
        vm->killed = MG_ERROR_CPU;
        return true;
    }
    vm->clock_next = now + (vm->cpu_deadline - cpu);
    return false;
}

static void mg_first_sign(mg_vm *vm, lua_State *L) {
    if (vm->error.kind != MG_ERROR_NONE) return;
    vm->error.kind = vm->killed;
    mg_capture_frames(vm, L);
}

// Yields when it can, because nothing of the script catches a yield; and is never resumed. Inside of a C call (a sort
// comparator, a gsub callback, a metamethod) it fails, and stops at the next instruction that can yield.
void mg_hook(lua_State *L, lua_Debug *ar) {
    (void)ar;
    mg_vm *vm = mg_of(L);
    // Short runs share the count of a pooled coroutine: the first sign may come after one instruction of this run. It
    // starts the time by the clock that costs no system call; the second is judged, and so is the first where little is
    // left of the budget.
    if (!vm->warmed && !vm->armed && vm->killed == MG_ERROR_NONE && vm->refusals == vm->refusals_seen &&
        vm->interval == MG_HOOK_INTERVAL && vm->cpu_budget > 2 * MG_WARM_NS) {
        vm->warmed = true;
        vm->clock_warmed = mg_clock_ns();
        return;
    }
    if (!mg_over(vm)) {
        int interval = mg_interval(vm);
        vm->interval = interval;
        mg_sync_hook(L, vm);
        return;
    }
    mg_first_sign(vm, L);
    if (lua_isyieldable(L)) {
        vm->yield = MG_YIELD_KILL;
        lua_yield(L, 0);
        return;
    }
    vm->interval = 1;
    lua_sethook(L, mg_hook, LUA_MASKCOUNT, 1);
    mg_deafen(L);
    lua_pushlightuserdata(L, vm);
    lua_error(L);
}

_Noreturn void mg_rethrow(lua_State *L, mg_vm *vm) {
    vm->interval = 1;
    lua_sethook(L, mg_hook, LUA_MASKCOUNT, 1);
    if (lua_isyieldable(L)) {
        vm->yield = MG_YIELD_KILL;
        lua_yield(L, 0);
    }
    lua_pushlightuserdata(L, vm);
    lua_error(L);
    __builtin_unreachable();
}

_Noreturn void mg_kill(lua_State *L, mg_vm *vm, mg_error_class kind) {
    if (vm->killed == MG_ERROR_NONE) vm->killed = kind;
    mg_first_sign(vm, L);
    mg_rethrow(L, vm);
}

void mg_check(lua_State *L, mg_vm *vm) {
    vm->credit = MG_CREDIT;
    if (mg_over(vm)) mg_kill(L, vm, vm->killed);
}

bool mg_vm_charge(mg_vm *vm, uint64_t work) {
    if (vm->killed != MG_ERROR_NONE) return false;
    vm->credit -= work < INT32_MAX ? (int64_t)work + 1 : INT32_MAX;
    if (vm->credit >= 0) return true;
    vm->credit = MG_CREDIT;
    return !mg_over(vm);
}

void mg_vm_account(mg_vm *vm, int64_t bytes) {
    if (bytes < 0 && (uint64_t)-bytes > vm->accounted) bytes = -(int64_t)vm->accounted;
    vm->accounted += (size_t)bytes;
    vm->memory += (size_t)bytes;
}

bool mg_fatal(lua_State *L, mg_vm *vm, int status, int error_index) {
    if (vm->killed != MG_ERROR_NONE) return true;
    bool memory = status == LUA_ERRMEM;
    // The library's own buffers say it by a plain message.
    if (!memory && vm->refusals > 0 && lua_type(L, error_index) == LUA_TSTRING) {
        size_t length;
        const char *text = lua_tolstring(L, error_index, &length);
        memory = length >= 17 && memcmp(text + length - 17, "not enough memory", 17) == 0;
    }
    if (!memory) return false;
    vm->killed = MG_ERROR_MEMORY;
    mg_first_sign(vm, L);
    return true;
}

// ------------------------------------------------------------------------------------------------------------ errors

const char *mg_phase_name(mg_phase phase) {
    static const char *const names[MG_PHASE_COUNT] = {"the top level", "init",  "rewrite",       "access",
                                                      "route",         "header_filter", "log"};
    return phase < MG_PHASE_COUNT ? names[phase] : "?";
}

static bool mg_script_line(lua_State *L, int level, lua_Debug *ar) {
    if (!lua_getstack(L, level, ar)) return false;
    lua_getinfo(L, "Sl", ar);
    return true;
}

void mg_where(lua_State *L) {
    lua_Debug ar;
    for (int level = 0; mg_script_line(L, level, &ar); level++) {
        if (ar.currentline > 0) {
            lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
            return;
        }
    }
    lua_pushliteral(L, "");
}

static void mg_copy_text(char *target, size_t room, const char *source, size_t length) {
    size_t count = length < room ? length : room - 1;
    memcpy(target, source, count);
    target[count] = '\0';
}

static void mg_capture_state(mg_vm *vm, lua_State *L) {
    mg_error *error = &vm->error;
    lua_Debug ar;
    for (int level = 0; error->frame_count < MG_ERROR_FRAMES && lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sln", &ar);
        if (ar.currentline <= 0) continue;
        mg_frame *frame = &error->frames[error->frame_count++];
        mg_copy_text(frame->file, sizeof frame->file, ar.short_src, strlen(ar.short_src));
        frame->line = ar.currentline;
        const char *name = ar.name;
        if (*ar.what == 'm') name = "main chunk";
        frame->function[0] = '\0';
        if (name != NULL) mg_copy_text(frame->function, sizeof frame->function, name, strlen(name));
    }
}

// Never allocates: it runs after memory has run out, too.
void mg_capture_frames(mg_vm *vm, lua_State *L) {
    mg_error *error = &vm->error;
    error->frame_count = 0;
    error->line = 0;
    error->file[0] = '\0';
    bool within = vm->chain_count > 0 && L != vm->top;
    mg_capture_state(vm, L);
    if (within) {
        bool outer = false;
        for (int i = vm->chain_count - 1; i >= 0; i--) {
            if (outer) mg_capture_state(vm, vm->chain[i]);
            if (vm->chain[i] == L) outer = true;
        }
        if (outer && vm->top != NULL) mg_capture_state(vm, vm->top);
    }
    if (error->frame_count > 0) {
        error->line = error->frames[0].line;
        memcpy(error->file, error->frames[0].file, sizeof error->file);
        mg_frame *last = &error->frames[error->frame_count - 1];
        if (last->function[0] == '\0' && error->frame_count < MG_ERROR_FRAMES) {
            const char *name = mg_phase_name(vm->phase);
            mg_copy_text(last->function, sizeof last->function, name, strlen(name));
        }
    }
}

static _Noreturn void mg_raise_api(lua_State *L) {
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, MG_REF_API_ERROR);
    lua_error(L);
    __builtin_unreachable();
}

_Noreturn void mg_api_error(lua_State *L, const char *format, ...) {
    va_list arguments;
    mg_where(L);
    va_start(arguments, format);
    lua_pushvfstring(L, format, arguments);
    va_end(arguments);
    lua_concat(L, 2);
    mg_raise_api(L);
}

_Noreturn void mg_api_error_bytes(lua_State *L, const char *message, size_t length) {
    mg_where(L);
    lua_pushlstring(L, message, length);
    lua_concat(L, 2);
    mg_raise_api(L);
}

_Noreturn void mg_host_error(lua_State *L, mg_vm *vm) {
    mg_out *out = &vm->out;
    if (out->failed) mg_kill(L, vm, MG_ERROR_MEMORY);
    if (out->count > 0 && out->values[0].tag == MG_BYTES) {
        mg_api_error_bytes(L, mg_out_text(out, &out->values[0]), out->values[0].length);
    }
    mg_api_error(L, "refused");
}

static void mg_error_reset(mg_vm *vm) {
    mg_error *error = &vm->error;
    error->kind = MG_ERROR_NONE;
    error->line = 0;
    error->frame_count = 0;
    error->file[0] = '\0';
    error->message[0] = '\0';
}

static void mg_error_say(mg_vm *vm, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void mg_error_say(mg_vm *vm, const char *format, ...) {
    mg_error *error = &vm->error;
    int used = 0;
    if (error->line > 0) used = snprintf(error->message, sizeof error->message, "%s:%d: ", error->file, error->line);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->message + used, sizeof error->message - (size_t)used, format, arguments);
    va_end(arguments);
}

static void mg_error_budget(mg_vm *vm) {
    switch (vm->error.kind) {
    case MG_ERROR_CPU: {
        bool seconds = vm->cpu_limit >= 1000000000;
        mg_error_say(vm, "the CPU budget of %.3g %s is used up", (double)vm->cpu_limit / (seconds ? 1e9 : 1e6),
                     seconds ? "s" : "ms");
        break;
    }
    case MG_ERROR_MEMORY:
        mg_error_say(vm, "the memory limit is reached (%.4g MiB in all, %d KiB for one string)",
                     (double)vm->cap / 1048576.0, (int)(vm->string_cap / 1024));
        break;
    case MG_ERROR_WALL:
        mg_error_say(vm, "the time limit is reached");
        break;
    case MG_ERROR_NONE:
    case MG_ERROR_RUNTIME:
    case MG_ERROR_API:
        mg_error_say(vm, "stopped");
        break;
    }
}

// "file:12: text" blames line 12 of the file, which need not be the innermost frame: error("…", 2).
static void mg_error_blame(mg_vm *vm, const char *text, size_t length) {
    mg_error *error = &vm->error;
    const char *colon = memchr(text, ':', length < 62 ? length : 62);
    if (colon == NULL || colon == text) return;
    size_t at = (size_t)(colon - text) + 1;
    int64_t line = 0;
    size_t digits = 0;
    while (at < length && text[at] >= '0' && text[at] <= '9' && digits < 8) {
        line = line * 10 + (text[at] - '0');
        at++;
        digits++;
    }
    if (digits == 0 || at + 1 >= length || text[at] != ':' || text[at + 1] != ' ') return;
    mg_copy_text(error->file, sizeof error->file, text, (size_t)(colon - text));
    error->line = (int32_t)line;
}

// Puts the error value at the top of L into words. Allocates nothing.
static void mg_error_describe(mg_vm *vm, lua_State *L, int status) {
    mg_error *error = &vm->error;
    if (vm->killed == MG_ERROR_NONE && lua_gettop(L) > 0) (void)mg_fatal(L, vm, status, -1);
    if (vm->killed != MG_ERROR_NONE) {
        mg_first_sign(vm, L);
        error->kind = vm->killed;
        mg_error_budget(vm);
        return;
    }
    if (error->frame_count == 0) mg_capture_frames(vm, L);
    error->kind = MG_ERROR_RUNTIME;
    int type = lua_gettop(L) > 0 ? lua_type(L, -1) : LUA_TNIL;
    if (type == LUA_TSTRING) {
        size_t length;
        const char *text = lua_tolstring(L, -1, &length);
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_API_ERROR);
        if (lua_rawequal(L, -1, -2)) error->kind = MG_ERROR_API;
        lua_pop(L, 1);
        mg_copy_text(error->message, sizeof error->message, text, length);
        mg_error_blame(vm, text, length);
        return;
    }
    if (type == LUA_TNUMBER) {
        if (lua_isinteger(L, -1)) mg_error_say(vm, "%lld", (long long)lua_tointeger(L, -1));
        else mg_error_say(vm, "%.14g", lua_tonumber(L, -1));
        return;
    }
    mg_error_say(vm, "(error object is a %s value)", lua_typename(L, type));
}

const mg_error *mg_vm_error(const mg_vm *vm) { return &vm->error; }

// ---------------------------------------------------------------------------------------------------- protected calls

typedef struct mg_task {
    mg_vm *vm;
    const char *name, *file, *source;
    size_t length, at;
    const mg_value *values;
    size_t count;
    lua_State *co;
    uint32_t number;
    bool flag;
} mg_task;

// Runs C code of ours, protected, on the main state; neither the function nor the pointer allocates.
static bool mg_protected(mg_vm *vm, lua_CFunction function, mg_task *task) {
    lua_State *L = vm->main;
    task->vm = vm;
    lua_pushcfunction(L, function);
    lua_pushlightuserdata(L, task);
    lua_State *running = vm->running;
    vm->running = L;
    int status = lua_pcall(L, 1, 0, 0);
    vm->running = running;
    if (status == LUA_OK) return true;
    mg_undeafen(L);
    mg_error_describe(vm, L, status);
    lua_settop(L, 0);
    vm->killed = MG_ERROR_NONE;
    return false;
}

// Base values of a pooled coroutine: the phase functions, so that a run finds its own without a look-up.
static void mg_dress(mg_vm *vm, lua_State *co) {
    lua_settop(co, 0);
    for (int phase = 0; phase < MG_PHASE_COUNT; phase++) {
        lua_rawgeti(co, LUA_REGISTRYINDEX, MG_REF_PHASE + phase);
    }
    (void)vm;
}

static int mg_make_coroutine(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_THREADS);
    task->co = lua_newthread(L);
    lua_rawsetp(L, -2, task->co);
    return 0;
}

static lua_State *mg_pool_take(mg_vm *vm) {
    if (vm->pool_count > 0) return vm->pool[--vm->pool_count];
    mg_task task = {0};
    if (!mg_protected(vm, mg_make_coroutine, &task)) return NULL;
    mg_dress(vm, task.co);
    return task.co;
}

// Leaves a coroutine to the collector.
static void mg_pool_drop(mg_vm *vm, lua_State *co) {
    // Removing a key that is there does not allocate.
    lua_rawgeti(vm->main, LUA_REGISTRYINDEX, MG_REF_THREADS);
    lua_pushnil(vm->main);
    lua_rawsetp(vm->main, -2, co);
    lua_pop(vm->main, 1);
}

static void mg_pool_give(mg_vm *vm, lua_State *co) {
    // Pooled coroutines have the ordinary interval, so that most runs need not set it.
    if (vm->interval != MG_HOOK_INTERVAL) lua_sethook(co, mg_hook, LUA_MASKCOUNT, MG_HOOK_INTERVAL);
    if (vm->pool_count < (int)(sizeof vm->pool / sizeof vm->pool[0])) {
        vm->pool[vm->pool_count++] = co;
        return;
    }
    mg_pool_drop(vm, co);
}

static int mg_renew_environment(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MAIN);
    lua_newtable(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_EMPTY_META);
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, MG_REF_ENVIRONMENT);
    lua_setupvalue(L, -2, 1);
    task->vm->environment_dirty = false;
    return 0;
}

static int mg_environment_write(lua_State *L) {
    mg_of(L)->environment_dirty = true;
    lua_settop(L, 3);
    lua_rawset(L, 1);
    return 0;
}

int mg_reset(lua_State *co) {
    if (mg_is_deaf(co)) return LUA_ERRRUN;
    int status = lua_resetthread(co);
    // What a variable's function throws is caught in there.
    mg_undeafen(co);
    return status;
}

// Closes what a dead run left open: with the hook on, and a budget of its own.
static void mg_bury(mg_vm *vm, lua_State *co) {
    void *run = vm->run;
    vm->run = NULL; // handles are dead for to-be-closed variables: the run is over
    vm->killed = MG_ERROR_NONE;
    vm->refusals_seen = vm->refusals;
    vm->cpu_budget = vm->close_limit;
    vm->wall_deadline = 0;
    vm->close_depth = 0;
    vm->warmed = false;
    mg_arm(vm);
    mg_error saved = vm->error;
    for (int i = vm->chain_count - 1; i >= 0; i--) {
        lua_State *inner = vm->chain[i];
        vm->interval = mg_interval(vm);
        vm->running = inner;
        vm->chain_count = i;
        lua_sethook(inner, mg_hook, LUA_MASKCOUNT, vm->interval);
        mg_reset(inner);
    }
    vm->interval = mg_interval(vm);
    vm->running = co;
    vm->chain_count = 0;
    lua_sethook(co, mg_hook, LUA_MASKCOUNT, vm->interval);
    mg_reset(co);
    vm->running = NULL;
    vm->killed = MG_ERROR_NONE;
    vm->refusals_seen = vm->refusals;
    vm->interval = mg_interval(vm);
    lua_sethook(co, mg_hook, LUA_MASKCOUNT, vm->interval);
    vm->error = saved;
    vm->run = run;
    if (mg_is_deaf(co)) {
        mg_pool_drop(vm, co);
        return;
    }
    mg_dress(vm, co);
    mg_pool_give(vm, co);
}

static void mg_settle(mg_vm *vm) {
    vm->running = NULL;
    vm->top = NULL;
    vm->run = NULL;
    vm->chain_count = 0;
    if (vm->environment_dirty) {
        mg_error saved = vm->error;
        mg_task task = {0};
        (void)mg_protected(vm, mg_renew_environment, &task); // tried again by the next run
        vm->error = saved;
    }
}

static void mg_prepare(mg_vm *vm, lua_State *co, void *run, mg_phase phase, uint64_t cpu, uint64_t wall) {
    vm->top = co;
    vm->running = co;
    vm->run = run;
    vm->phase = phase;
    vm->phase_bit = MG_PHASE_BIT(phase);
    vm->killed = MG_ERROR_NONE;
    vm->armed = false;
    vm->warmed = false;
    vm->off_cpu = 0;
    vm->cpu_budget = cpu;
    vm->wall_deadline = wall;
    vm->credit = MG_CREDIT;
    vm->chain_count = 0;
    vm->refusals_seen = vm->refusals;
    vm->interval = mg_interval(vm);
    vm->error.kind = MG_ERROR_NONE;
    vm->error.frame_count = 0;
    if (vm->interval != MG_HOOK_INTERVAL) mg_sync_hook(co, vm);
}

// --------------------------------------------------------------------------------------------------------- responses

// Reads the response object that a phase returned and hands it to the host. Raw access only: no code of the script
// runs here. Strings stay alive on the stack.
static int mg_deliver(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    mg_vm *vm = task->vm;
    lua_settop(L, 0);
    lua_pushvalue(task->co, MG_PHASE_COUNT + 1);
    lua_xmove(task->co, L, 1);
    lua_pushliteral(L, "status");
    lua_rawget(L, 1);
    int exact = 0;
    lua_Integer status = lua_tointegerx(L, -1, &exact);
    if (!exact || status < 100 || status > 999) mg_api_error(L, "a response needs a status from 100 to 999");
    lua_pop(L, 1);

    lua_pushliteral(L, "body");
    lua_rawget(L, 1);
    size_t body_length = 0;
    const char *body = "";
    if (!lua_isnil(L, -1)) {
        if (!lua_isstring(L, -1)) mg_api_error(L, "the body of a response is a string");
        body = lua_tolstring(L, -1, &body_length);
    } // index 2

    lua_pushliteral(L, "headers");
    lua_rawget(L, 1); // index 3
    mg_pair *pairs = NULL;
    size_t count = 0;
    if (!lua_isnil(L, 3)) {
        if (!lua_istable(L, 3)) mg_api_error(L, "the headers of a response are a table");
        mg_unwrap(L, 3);
        // First the number of fields, then the array, as a userdata that the collector frees.
        size_t capacity = 0;
        for (lua_pushnil(L); mg_next(L, vm, 3); lua_pop(L, 1)) {
            mg_unwrap(L, -1);
            capacity += lua_istable(L, -1) ? (size_t)lua_rawlen(L, -1) : 1;
            mg_charge(L, vm, 8);
        }
        if (capacity > 256) mg_api_error(L, "a response has at most 256 header fields");
        pairs = lua_newuserdatauv(L, sizeof(mg_pair) * (capacity + 1), 0); // index 4
        lua_createtable(L, (int)capacity, 0);                             // index 5: keeps converted numbers
        lua_Integer kept = 0;
        for (lua_pushnil(L); mg_next(L, vm, 3); lua_pop(L, 1)) {
            if (lua_type(L, -2) != LUA_TSTRING) mg_api_error(L, "a header name is a string");
            mg_unwrap(L, -1);
            bool list = lua_istable(L, -1);
            if (list) mg_check_list(L, -1, lua_tostring(L, -2));
            lua_Integer values = list ? (lua_Integer)lua_rawlen(L, -1) : 1;
            for (lua_Integer i = 1; i <= values && count < capacity; i++) {
                if (list) lua_rawgeti(L, -1, i);
                else lua_pushvalue(L, -1);
                if (!lua_isstring(L, -1)) {
                    mg_api_error(L, "header '%s' is a %s; a value is a string or a list of them",
                                 lua_tostring(L, list ? -3 : -3), luaL_typename(L, -1));
                }
                mg_pair *pair = &pairs[count++];
                pair->value = lua_tolstring(L, -1, &pair->value_length);
                pair->name = lua_tolstring(L, -3, &pair->name_length);
                lua_rawseti(L, 5, ++kept);
            }
        }
        // Tables have no order; the wire gets one that is the same each time. Insertion keeps lists in order.
        for (size_t i = 1; i < count; i++) {
            mg_pair pair = pairs[i];
            size_t j = i;
            while (j > 0) {
                const mg_pair *left = &pairs[j - 1];
                size_t shorter = left->name_length < pair.name_length ? left->name_length : pair.name_length;
                int order = memcmp(left->name, pair.name, shorter);
                if (order == 0) order = left->name_length > pair.name_length ? 1 : 0;
                if (order <= 0) break;
                pairs[j] = pairs[j - 1];
                j--;
            }
            pairs[j] = pair;
        }
    }
    mg_out_clear(&vm->out);
    if (vm->host.respond(vm->run, status, pairs, count, body, body_length, &vm->out) != MG_HOST_OK) {
        mg_host_error(L, vm);
    }
    return 0;
}

// ----------------------------------------------------------------------------------------------------------- outcomes

static mg_outcome mg_fail(mg_vm *vm, lua_State *co, int status) {
    mg_error_describe(vm, co, status);
    mg_bury(vm, co);
    mg_settle(vm);
    return MG_FAILED;
}

static bool mg_suspend(mg_vm *vm, mg_slot *slot, lua_State *co) {
    slot->chain = NULL;
    slot->chain_count = vm->chain_count;
    if (vm->chain_count > 0) {
        slot->chain = malloc(sizeof(lua_State *) * (size_t)vm->chain_count);
        if (slot->chain == NULL) return false;
        memcpy(slot->chain, vm->chain, sizeof(lua_State *) * (size_t)vm->chain_count);
    }
    slot->co = co;
    slot->phase = vm->phase;
    slot->wall_deadline = vm->wall_deadline;
    // A stretch too short for its clock to be read still counts, or a script could live on such stretches.
    if (!vm->armed) slot->cpu_used += MG_SHORT_STRETCH_NS;
    vm->waiting++;
    return true;
}

static int mg_keep_environment(lua_State *L) {
    // The globals that a waiting run wrote stay its own: it gets them back, others get fresh ones.
    mg_task *task = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_STATES);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_ENVIRONMENT);
    lua_rawseti(L, -2, -(lua_Integer)task->number - 1);
    return 0;
}

static uint64_t mg_cpu_left(const mg_vm *vm, const mg_slot *slot) {
    return slot->cpu_used < vm->cpu_limit ? vm->cpu_limit - slot->cpu_used : 0;
}

static mg_outcome mg_conclude(mg_vm *vm, lua_State *co, int status, uint32_t index) {
    mg_settle_time(vm, &vm->slots[index]);
    if (status == LUA_OK) {
        int results = lua_gettop(co) - MG_PHASE_COUNT;
        if (results <= 0 || lua_isnil(co, MG_PHASE_COUNT + 1)) {
            lua_settop(co, MG_PHASE_COUNT);
            mg_pool_give(vm, co);
            mg_settle(vm);
            return MG_NEXT;
        }
        // Is it a response? Its metatable is ours, and locked.
        bool response = false;
        if (lua_istable(co, MG_PHASE_COUNT + 1) && lua_getmetatable(co, MG_PHASE_COUNT + 1)) {
            lua_rawgeti(co, LUA_REGISTRYINDEX, MG_REF_RESPONSE_META);
            response = lua_rawequal(co, -1, -2);
            lua_pop(co, 2);
        }
        if (!response || vm->phase == MG_PHASE_LOG) {
            vm->error.kind = MG_ERROR_API;
            vm->error.line = 0;
            vm->error.file[0] = '\0';
            if (response) {
                mg_error_say(vm, "log returned a response; the response has been sent already");
            } else {
                mg_error_say(vm, "%s returned a %s; return nothing, or a response made by moongate.respond",
                             mg_phase_name(vm->phase), luaL_typename(co, MG_PHASE_COUNT + 1));
            }
            lua_settop(co, MG_PHASE_COUNT);
            mg_pool_give(vm, co);
            mg_settle(vm);
            return MG_FAILED;
        }
        lua_settop(co, MG_PHASE_COUNT + 1);
        mg_task task = {.co = co};
        bool delivered = mg_protected(vm, mg_deliver, &task);
        lua_settop(co, MG_PHASE_COUNT);
        mg_pool_give(vm, co);
        mg_settle(vm);
        return delivered ? MG_RESPONDED : MG_FAILED;
    }
    if (status == LUA_YIELD) {
        if (vm->yield == MG_YIELD_HOST && vm->killed == MG_ERROR_NONE) {
            mg_slot *slot = &vm->slots[index];
            slot->has_environment = false;
            if (vm->environment_dirty) {
                mg_task task = {.number = index};
                slot->has_environment = mg_protected(vm, mg_keep_environment, &task);
            }
            if (mg_suspend(vm, slot, co)) {
                mg_settle(vm);
                return MG_SUSPENDED;
            }
            vm->killed = MG_ERROR_MEMORY;
        }
        if (vm->killed == MG_ERROR_NONE) {
            // coroutine.yield refuses at the top of a run, so no other yield arrives here.
            vm->killed = MG_ERROR_RUNTIME;
        }
        return mg_fail(vm, co, LUA_OK);
    }
    return mg_fail(vm, co, status);
}

static bool mg_environment_ready(mg_vm *vm) {
    if (!vm->environment_dirty) return true;
    mg_task task = {0};
    return mg_protected(vm, mg_renew_environment, &task);
}

mg_outcome mg_run(mg_vm *vm, mg_request request, mg_phase phase, void *run, uint64_t wall_deadline_ns) {
    if (phase >= MG_PHASE_COUNT || (vm->phases & MG_PHASE_BIT(phase)) == 0) return MG_NEXT;
    uint32_t index = request - 1;
    if (request == 0 || index >= vm->slot_count || !vm->slots[index].used || vm->slots[index].co != NULL) {
        mg_error_reset(vm);
        vm->error.kind = MG_ERROR_RUNTIME;
        mg_error_say(vm, "the request is not open");
        return MG_FAILED;
    }
    if (!mg_environment_ready(vm)) return MG_FAILED;
    lua_State *co = mg_pool_take(vm);
    if (co == NULL) return MG_FAILED;
    mg_prepare(vm, co, run, phase, mg_cpu_left(vm, &vm->slots[index]), wall_deadline_ns);
    vm->slot = index;
    uint64_t generation = vm->slots[index].generation;
    lua_pushvalue(co, 1 + (int)phase);
    mg_push_handle(co, mg_handle(MG_KIND_REQ, index, generation));
    int arguments = 2;
    if (phase == MG_PHASE_HEADER_FILTER || phase == MG_PHASE_LOG) {
        mg_push_handle(co, mg_handle(MG_KIND_RES, index, generation));
        arguments = 3;
    }
    mg_push_handle(co, mg_handle(MG_KIND_CTX, index, generation));
    int results;
    int status = lua_resume(co, NULL, arguments, &results);
    return mg_conclude(vm, co, status, index);
}

mg_out *mg_vm_scratch(mg_vm *vm) {
    mg_out_clear(&vm->out);
    return &vm->out;
}

static int mg_restore_environment(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MAIN);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_STATES);
    lua_rawgeti(L, -1, -(lua_Integer)task->number - 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, MG_REF_ENVIRONMENT);
    lua_setupvalue(L, -3, 1);
    lua_pushnil(L);
    lua_rawseti(L, -2, -(lua_Integer)task->number - 1);
    task->vm->environment_dirty = true;
    return 0;
}

static void mg_unsuspend(mg_vm *vm, mg_slot *slot) {
    slot->co = NULL;
    free(slot->chain);
    slot->chain = NULL;
    slot->chain_count = 0;
    vm->waiting--;
}

mg_outcome mg_resume(mg_vm *vm, mg_request request, void *run, bool error) {
    uint32_t index = request - 1;
    if (request == 0 || index >= vm->slot_count || vm->slots[index].co == NULL) {
        mg_error_reset(vm);
        vm->error.kind = MG_ERROR_RUNTIME;
        mg_error_say(vm, "the request does not wait");
        return MG_FAILED;
    }
    mg_slot *slot = &vm->slots[index];
    lua_State *co = slot->co;
    uint64_t left = mg_cpu_left(vm, slot);
    if (slot->has_environment) {
        mg_task task = {.number = index};
        if (!mg_protected(vm, mg_restore_environment, &task)) {
            mg_cancel(vm, request, MG_ERROR_MEMORY);
            return MG_FAILED;
        }
        slot->has_environment = false;
    } else if (!mg_environment_ready(vm)) {
        mg_cancel(vm, request, MG_ERROR_MEMORY);
        return MG_FAILED;
    }
    mg_phase phase = slot->phase;
    uint64_t wall = slot->wall_deadline;
    mg_unsuspend(vm, slot);
    mg_prepare(vm, co, run, phase, left, wall);
    vm->slot = index;
    vm->resume_error = error;
    int results;
    int status = lua_resume(co, NULL, 0, &results);
    return mg_conclude(vm, co, status, index);
}

void mg_cancel(mg_vm *vm, mg_request request, mg_error_class kind) {
    uint32_t index = request - 1;
    if (request == 0 || index >= vm->slot_count || vm->slots[index].co == NULL) return;
    mg_slot *slot = &vm->slots[index];
    lua_State *co = slot->co;
    int count = slot->chain_count;
    lua_State *chain[MG_MAX_CHAIN];
    if (count > 0) memcpy(chain, slot->chain, sizeof(lua_State *) * (size_t)count);
    mg_phase phase = slot->phase;
    if (slot->has_environment) {
        // Removing a key that is there does not allocate.
        lua_rawgeti(vm->main, LUA_REGISTRYINDEX, MG_REF_STATES);
        lua_pushnil(vm->main);
        lua_rawseti(vm->main, -2, -(lua_Integer)index - 1);
        lua_pop(vm->main, 1);
        slot->has_environment = false;
    }
    mg_unsuspend(vm, slot);
    mg_prepare(vm, co, NULL, phase, vm->close_limit, 0);
    if (count > 0) memcpy(vm->chain, chain, sizeof(lua_State *) * (size_t)count);
    vm->chain_count = count;
    vm->killed = kind;
    mg_error_reset(vm);
    vm->error.kind = kind;
    mg_capture_frames(vm, count > 0 ? chain[count - 1] : co);
    mg_error_budget(vm);
    mg_bury(vm, co);
    mg_settle(vm);
}

// ----------------------------------------------------------------------------------------------------------- requests

mg_request mg_request_begin(mg_vm *vm) {
    uint32_t index = vm->slot_free;
    if (index != UINT32_MAX) {
        vm->slot_free = vm->slots[index].next_free;
    } else {
        if (vm->slot_count == vm->slot_capacity) {
            if (vm->slot_capacity >= 32768) return 0;
            uint32_t capacity = vm->slot_capacity == 0 ? 4 : vm->slot_capacity * 2;
            mg_slot *slots = realloc(vm->slots, sizeof(mg_slot) * capacity);
            if (slots == NULL) return 0;
            vm->slots = slots;
            vm->slot_capacity = capacity;
        }
        index = vm->slot_count++;
        memset(&vm->slots[index], 0, sizeof(mg_slot));
    }
    mg_slot *slot = &vm->slots[index];
    slot->generation++;
    slot->used = true;
    slot->cpu_used = 0;
    return index + 1;
}

void mg_request_end(mg_vm *vm, mg_request request) {
    uint32_t index = request - 1;
    if (request == 0 || index >= vm->slot_count || !vm->slots[index].used) return;
    if (vm->slots[index].co != NULL) mg_cancel(vm, request, MG_ERROR_WALL);
    mg_slot *slot = &vm->slots[index];
    if (slot->has_state) {
        lua_rawgeti(vm->main, LUA_REGISTRYINDEX, MG_REF_STATES);
        lua_pushnil(vm->main);
        lua_rawseti(vm->main, -2, (lua_Integer)index + 1);
        lua_pop(vm->main, 1);
        slot->has_state = false;
    }
    slot->used = false;
    slot->generation++;
    slot->next_free = vm->slot_free;
    vm->slot_free = index;
}

// --------------------------------------------------------------------------------------------------------- life of a VM

// A chain of weak keys makes one step of the collector take as long as the square of its length, and no hook runs in it.
// `setmetatable` refuses weak tables; but a script may write `__mode` into a metatable that is in place already, and
// Lua asks for it anew in each cycle. It asks by the one string "__mode" that it made at its start and interned: with
// other, secret bytes in it, the name that a script writes is another string, and no table has a mode.
static void mg_forget_modes(lua_State *L) {
    lua_pushliteral(L, "__mode");
    char *name = (char *)(uintptr_t)lua_tostring(L, -1);
    // Without chance the bytes would be the same each time: still no name that a script has a use for.
    if (getentropy(name, 6) != 0) memcpy(name, "\001\002\003\004\005\006", 6);
    lua_pop(L, 1);
}

static int mg_setup(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    mg_vm *vm = task->vm;
    for (int reference = MG_REF_SCRIPT_GLOBALS; reference < MG_REF_PHASE + MG_PHASE_COUNT; reference++) {
        lua_pushboolean(L, 0);
        lua_rawseti(L, LUA_REGISTRYINDEX, reference);
    }
    static const int tables[] = {MG_REF_BASE,   MG_REF_SCRIPT_GLOBALS, MG_REF_EMPTY_META,    MG_REF_STATES,
                                 MG_REF_MODULES, MG_REF_LOADED,         MG_REF_RESPONSE_META, MG_REF_ARRAY_META,
                                 MG_REF_CLASSES, MG_REF_MOONGATE,       MG_REF_KEYS,          MG_REF_THREADS,
                                 MG_REF_CONFIG,  MG_REF_ENVIRONMENT};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        lua_newtable(L);
        lua_rawseti(L, LUA_REGISTRYINDEX, tables[i]);
    }
    mg_forget_modes(L);
    mg_open_base(L, vm);
    mg_open_string(L, vm);
    mg_open_table(L, vm);
    mg_open_coroutine(L, vm);
    mg_open_objects(L, vm);
    mg_open_module(L, vm);

    // _G is what a script sees of the frozen globals.
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    lua_pushvalue(L, -1);
    mg_freeze(L, "_G");
    lua_setfield(L, -2, "_G");
    // Globals of the top level fall back to them.
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_SCRIPT_GLOBALS);
    lua_createtable(L, 0, 2);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_EMPTY_META);
    lua_pushcfunction(L, mg_environment_write);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    // Lua's own table of globals is not used: nothing is to be found there.
    lua_newtable(L);
    lua_rawseti(L, LUA_REGISTRYINDEX, LUA_RIDX_GLOBALS);
    return 0;
}

mg_vm *mg_vm_create(const mg_limits *limits, const mg_host *host, void *host_context) {
    mg_vm *vm = calloc(1, sizeof(mg_vm));
    if (vm == NULL) return NULL;
    vm->cap = limits->memory != 0 ? limits->memory : (size_t)8 << 20;
    vm->string_cap = vm->cap / 16; // one instruction on a string takes time in proportion to its length
    if (vm->string_cap < 65536) vm->string_cap = 65536;
    vm->block_cap = vm->cap / 2;
    vm->cpu_limit = limits->cpu_ns != 0 ? limits->cpu_ns : 5000000;
    vm->load_limit = limits->load_cpu_ns != 0 ? limits->load_cpu_ns : 100000000;
    vm->close_limit = limits->close_cpu_ns != 0 ? limits->close_cpu_ns : 1000000;
    vm->source_limit = limits->source != 0 ? limits->source : (size_t)256 << 10;
    vm->host = *host;
    vm->host_context = host_context;
    vm->slot_free = UINT32_MAX;
    vm->interval = MG_HOOK_INTERVAL;
    vm->credit = MG_CREDIT;
    vm->main = lua_newstate(mg_allocate, vm);
    if (vm->main == NULL) {
        mg_vm_destroy(vm);
        return NULL;
    }
    *(mg_vm **)lua_getextraspace(vm->main) = vm;
    // Before any code of a script, and never cleared: every coroutine inherits it.
    lua_sethook(vm->main, mg_hook, LUA_MASKCOUNT, vm->interval);
    mg_task task = {0};
    vm->cpu_budget = vm->load_limit;
    if (!mg_protected(vm, mg_setup, &task)) {
        mg_vm_destroy(vm);
        return NULL;
    }
    lua_settop(vm->main, 0);
    return vm;
}

void mg_vm_destroy(mg_vm *vm) {
    if (vm == NULL) return;
    vm->fail_at = 0;
    if (vm->main != NULL) lua_close(vm->main); // only finalisers of our own: the class of handles
    for (uint32_t i = 0; i < vm->slot_count; i++) free(vm->slots[i].chain);
    free(vm->slots);
    free(vm->functions);
    free(vm->choices);
    free(vm->scratch);
    mg_out_free(&vm->out);
    mg_out_free(&vm->arguments);
    for (struct mg_slab *slab = vm->slabs; slab != NULL;) {
        struct mg_slab *next = slab->next;
        free(slab);
        slab = next;
    }
    free(vm);
}

// A reader that hands the source over in pieces, so that a chunk made to be slow to compile is stopped.
static const char *mg_read(lua_State *L, void *context, size_t *size) {
    mg_task *task = context;
    mg_check(L, task->vm);
    size_t left = task->length - task->at;
    if (left == 0) {
        *size = 0;
        return NULL;
    }
    *size = left < 1024 ? left : 1024;
    const char *piece = task->source + task->at;
    task->at += *size;
    return piece;
}

static int mg_compile_task(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    mg_vm *vm = task->vm;
    int status = LUA_OK;
    if (task->length > vm->source_limit) {
        lua_pushfstring(L, "%s: the script has %d KiB; at most %d KiB are allowed", task->file,
                        (int)((task->length + 1023) / 1024), (int)(vm->source_limit / 1024));
        status = LUA_ERRSYNTAX;
    } else {
        lua_pushfstring(L, "@%s", task->file);
        const char *name = lua_tostring(L, -1);
        status = lua_load(L, mg_read, task, name, "t");
    }
    bool main_chunk = task->name == NULL;
    // A module that does not compile is its message: who requires it is told.
    if (status != LUA_OK && (main_chunk || task->flag || mg_fatal(L, vm, status, -1))) return lua_error(L);
    if (main_chunk) {
        // The main chunk: its _ENV is the globals of the script.
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_SCRIPT_GLOBALS);
        lua_setupvalue(L, -2, 1);
        lua_rawseti(L, LUA_REGISTRYINDEX, MG_REF_MAIN);
        vm->compiled = true;
    } else {
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MODULES);
        lua_pushstring(L, task->name);
        lua_pushvalue(L, -3);
        lua_rawset(L, -3);
    }
    return 0;
}

static bool mg_compile(mg_vm *vm, mg_task *task) {
    mg_error_reset(vm);
    vm->phase = MG_PHASE_LOAD;
    vm->phase_bit = MG_PHASE_BIT(MG_PHASE_LOAD);
    vm->killed = MG_ERROR_NONE;
    vm->armed = false;
    vm->warmed = false;
    vm->wall_deadline = 0;
    vm->cpu_budget = vm->load_limit;
    vm->refusals_seen = vm->refusals;
    vm->top = NULL;
    uint64_t limit = vm->cpu_limit;
    vm->cpu_limit = vm->load_limit; // what a message says
    bool good = mg_protected(vm, mg_compile_task, task);
    vm->cpu_limit = limit;
    vm->interval = mg_interval(vm);
    return good;
}

bool mg_vm_add_module(mg_vm *vm, const char *name, const char *file, const char *source, size_t length,
                      bool must_compile) {
    mg_task task = {.name = name, .file = file, .source = source, .length = length, .flag = must_compile};
    return mg_compile(vm, &task);
}

bool mg_vm_compile(mg_vm *vm, const char *file, const char *source, size_t length) {
    mg_task task = {.file = file, .source = source, .length = length};
    return mg_compile(vm, &task);
}

// The modules, at -2, see the same globals as the main chunk, at -1.
static void mg_join(lua_State *L) {
    for (lua_pushnil(L); lua_next(L, -3); lua_pop(L, 1)) {
        if (lua_isfunction(L, -1)) lua_upvaluejoin(L, -1, 1, -3, 1);
    }
}

static int mg_adopt(lua_State *L) {
    static const char *const names[MG_PHASE_COUNT] = {NULL,    "init",          "rewrite", "access",
                                                      "route", "header_filter", "log"};
    mg_task *task = lua_touserdata(L, 1);
    mg_vm *vm = task->vm;
    // The table was left at the top of the coroutine.
    lua_checkstack(task->co, 1);
    lua_pushvalue(task->co, -1);
    lua_xmove(task->co, L, 1);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, MG_REF_SCRIPT);
    uint32_t phases = 0;
    for (int phase = MG_PHASE_INIT; phase < MG_PHASE_COUNT; phase++) {
        lua_pushstring(L, names[phase]);
        lua_rawget(L, -2);
        if (lua_isfunction(L, -1)) {
            phases |= MG_PHASE_BIT(phase);
        } else if (!lua_isnil(L, -1)) {
            lua_pushfstring(L, "%s is a %s; a phase is a function", names[phase], luaL_typename(L, -1));
            return lua_error(L);
        }
        lua_rawseti(L, LUA_REGISTRYINDEX, MG_REF_PHASE + phase);
    }
    // From here on, globals are written to a table that lives as long as a run.
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_EMPTY_META);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_SCRIPT_GLOBALS);
    lua_pushnil(L);
    if (lua_next(L, -2)) {
        lua_pop(L, 2);
    } else {
        lua_pop(L, 1); // the script wrote none: one step less for each global that it reads
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    }
    lua_setfield(L, -2, "__index");
    lua_settop(L, 1);
    mg_renew_environment(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MODULES);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MAIN);
    mg_join(L);
    vm->phases = phases;
    vm->loaded = true;
    return 0;
}

static int mg_join_modules(lua_State *L) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MODULES);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MAIN);
    mg_join(L);
    return 0;
}

static void mg_tune_collector(mg_vm *vm) {
    // The live heap of a script is small beside its limit, so the collector may wait for much garbage: a cycle that
    // comes once in thousands of requests costs nothing. Lua takes at most 1000 %.
    size_t pause = vm->memory == 0 ? 200 : vm->cap / 4 * 100 / vm->memory;
    if (pause < 200) pause = 200;
    if (pause > 1000) pause = 1000;
    lua_gc(vm->main, LUA_GCINC, (int)pause, 200, 0);
}

// Runs a function outside of a request, under the load budget. Its results are left on the coroutine.
static bool mg_run_outside(mg_vm *vm, lua_State *co, mg_phase phase, int arguments) {
    uint64_t limit = vm->cpu_limit;
    vm->cpu_limit = vm->load_limit;
    mg_error_reset(vm);
    mg_prepare(vm, co, NULL, phase, vm->load_limit, 0);
    int results;
    int status = lua_resume(co, NULL, arguments, &results);
    bool good = status == LUA_OK;
    if (!good) {
        if (status == LUA_YIELD && vm->killed == MG_ERROR_NONE) vm->killed = MG_ERROR_RUNTIME;
        (void)mg_fail(vm, co, status == LUA_YIELD ? LUA_OK : status);
    }
    vm->cpu_limit = limit;
    return good;
}

bool mg_vm_load(mg_vm *vm) {
    mg_error_reset(vm);
    if (!vm->compiled || vm->loaded) {
        vm->error.kind = MG_ERROR_RUNTIME;
        mg_error_say(vm, vm->loaded ? "the script is loaded already" : "the script is not compiled");
        return false;
    }
    mg_task join = {0};
    if (!mg_protected(vm, mg_join_modules, &join)) return false;
    lua_State *co = mg_pool_take(vm);
    if (co == NULL) return false;
    lua_rawgeti(co, LUA_REGISTRYINDEX, MG_REF_MAIN);
    if (!mg_run_outside(vm, co, MG_PHASE_LOAD, 0)) return false;
    mg_task task = {.co = co};
    bool good;
    if (lua_gettop(co) <= MG_PHASE_COUNT || !lua_istable(co, MG_PHASE_COUNT + 1)) {
        vm->error.kind = MG_ERROR_API;
        bool nothing = lua_gettop(co) <= MG_PHASE_COUNT;
        mg_error_say(vm, "the script returned %s%s; it must return a table of phases", nothing ? "" : "a ",
                     nothing ? "nothing" : luaL_typename(co, MG_PHASE_COUNT + 1));
        good = false;
    } else {
        lua_settop(co, MG_PHASE_COUNT + 1);
        good = mg_protected(vm, mg_adopt, &task);
    }
    mg_dress(vm, co);
    mg_pool_give(vm, co);
    mg_settle(vm);
    if (good) mg_tune_collector(vm);
    return good;
}

uint32_t mg_vm_phases(const mg_vm *vm) { return vm->phases; }

static int mg_configure_task(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    size_t at = 0;
    if (task->count == 0) {
        lua_newtable(L);
        mg_freeze(L, "config");
    } else {
        mg_push_tree(L, task->vm, task->values, task->count, &at, NULL, "ctx.config");
    }
    lua_rawseti(L, LUA_REGISTRYINDEX, MG_REF_CONFIG);
    return 0;
}

bool mg_vm_configure(mg_vm *vm, const mg_value *values, size_t count) {
    mg_error_reset(vm);
    mg_task task = {.values = values, .count = count};
    vm->armed = false;
    vm->warmed = false;
    vm->wall_deadline = 0;
    vm->cpu_budget = vm->load_limit;
    vm->killed = MG_ERROR_NONE;
    bool good = mg_protected(vm, mg_configure_task, &task);
    if (good) mg_tune_collector(vm);
    return good;
}

bool mg_vm_init(mg_vm *vm) {
    mg_error_reset(vm);
    if ((vm->phases & MG_PHASE_BIT(MG_PHASE_INIT)) == 0) return true;
    if (!mg_environment_ready(vm)) return false;
    lua_State *co = mg_pool_take(vm);
    if (co == NULL) return false;
    lua_pushvalue(co, 1 + MG_PHASE_INIT);
    lua_rawgeti(co, LUA_REGISTRYINDEX, MG_REF_CONFIG);
    if (!mg_run_outside(vm, co, MG_PHASE_INIT, 1)) return false;
    lua_settop(co, MG_PHASE_COUNT);
    mg_pool_give(vm, co);
    mg_settle(vm);
    mg_tune_collector(vm);
    return true;
}

static int mg_describe_task(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_SCRIPT);
    if (!lua_istable(L, -1)) return 0;
    if (task->name != NULL) {
        lua_pushstring(L, task->name);
        lua_rawget(L, -2);
    } else {
        lua_newtable(L);
        int list = lua_gettop(L), count = 0;
        for (lua_pushnil(L); lua_next(L, list - 1); lua_pop(L, 1)) {
            // What is no string has no name to be known by: it is told as what it is.
            if (lua_type(L, -2) == LUA_TSTRING) lua_pushvalue(L, -2);
            else lua_pushfstring(L, "[%s]", luaL_typename(L, -2));
            lua_rawseti(L, list, ++count);
        }
    }
    mg_marshal(L, task->vm, -1, &task->vm->out, false);
    return 0;
}

mg_out *mg_vm_describe(mg_vm *vm, const char *key) {
    mg_error_reset(vm);
    mg_task task = {.name = key};
    mg_out_clear(&vm->out);
    vm->armed = false;
    vm->warmed = false;
    vm->wall_deadline = 0;
    vm->cpu_budget = vm->load_limit;
    vm->killed = MG_ERROR_NONE;
    if (!mg_protected(vm, mg_describe_task, &task)) return NULL;
    if (vm->out.failed) {
        vm->error.kind = MG_ERROR_MEMORY;
        mg_error_budget(vm);
        return NULL;
    }
    return &vm->out;
}

// -------------------------------------------------------------------------------------------- functions of the host

static int mg_define_task(lua_State *L);

bool mg_vm_define_function(mg_vm *vm, const char *name, uint32_t function, uint32_t phases) {
    mg_error_reset(vm);
    mg_task task = {.name = name, .number = function, .count = phases};
    return mg_protected(vm, mg_define_task, &task);
}

bool mg_vm_define_method(mg_vm *vm, uint32_t class_id, const char *name, uint32_t function, uint32_t phases) {
    mg_error_reset(vm);
    if (class_id == 0 || class_id > vm->class_count) return false;
    mg_task task = {.name = name, .number = function, .count = phases, .at = class_id};
    return mg_protected(vm, mg_define_task, &task);
}

static int mg_define_task(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    mg_vm *vm = task->vm;
    if (vm->function_count == vm->function_capacity) {
        uint32_t capacity = vm->function_capacity == 0 ? 32 : vm->function_capacity * 2;
        mg_function *functions = realloc(vm->functions, sizeof(mg_function) * capacity);
        if (functions == NULL) return luaL_error(L, "not enough memory");
        vm->functions = functions;
        vm->function_capacity = capacity;
    }
    uint32_t index = vm->function_count;
    mg_function *function = &vm->functions[index];
    function->id = task->number;
    function->phases = (uint32_t)task->count;
    function->class_id = (uint32_t)task->at;
    mg_copy_text(function->name, sizeof function->name, task->name, strlen(task->name));
    const char *name = task->name;
    if (task->at != 0) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_CLASSES);
        lua_rawgeti(L, -1, (lua_Integer)task->at);
        if (strcmp(name, "__tostring") != 0) lua_getfield(L, -1, "__index");
    } else {
        lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_MOONGATE);
        const char *dot;
        while ((dot = strchr(name, '.')) != NULL) {
            lua_pushlstring(L, name, (size_t)(dot - name));
            lua_pushvalue(L, -1);
            lua_rawget(L, -3);
            if (lua_isnil(L, -1)) {
                lua_pop(L, 1);
                lua_newtable(L);
                lua_pushvalue(L, -1); // name, table, table
                // What cannot be written to is the module, and not what is put into it first.
                lua_pushliteral(L, "moongate.");
                lua_pushlstring(L, task->name, (size_t)(dot - task->name));
                lua_concat(L, 2);
                lua_insert(L, -2); // name, table, its name, table
                mg_freeze(L, lua_tostring(L, -2));
                lua_remove(L, -2); // name, table, proxy
                lua_pushvalue(L, -3);
                lua_insert(L, -2);   // name, table, name, proxy
                lua_rawset(L, -5);
            } else if (!mg_unwrap(L, -1)) {
                return luaL_error(L, "%s: not a module", task->name);
            }
            lua_replace(L, -3); // the table takes the place of the one that held it
            lua_pop(L, 1);
            name = dot + 1;
        }
    }
    lua_pushstring(L, name);
    lua_pushinteger(L, (lua_Integer)index);
    lua_pushcclosure(L, mg_call_function, 1);
    lua_rawset(L, -3);
    vm->function_count++;
    return 0;
}

static int mg_class_task(lua_State *L) {
    mg_task *task = lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_CLASSES);
    lua_createtable(L, 0, 5);
    lua_newtable(L);
    lua_setfield(L, -2, "__index");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pushstring(L, task->name);
    lua_setfield(L, -2, "__name");
    if (task->flag) {
        lua_pushcfunction(L, mg_release_handle);
        lua_setfield(L, -2, "__gc");
    }
    lua_rawseti(L, -2, (lua_Integer)task->number);
    return 0;
}

uint32_t mg_vm_define_class(mg_vm *vm, const char *name, bool released) {
    mg_error_reset(vm);
    if (vm->class_count + 1 >= MG_MAX_HANDLE_CLASSES) return 0;
    mg_task task = {.name = name, .number = vm->class_count + 1, .flag = released};
    if (!mg_protected(vm, mg_class_task, &task)) return 0;
    vm->class_count++;
    vm->class_released[vm->class_count] = released;
    mg_copy_text(vm->class_names[vm->class_count], sizeof vm->class_names[0], name, strlen(name));
    return vm->class_count;
}

// ------------------------------------------------------------------------------------------------- seeing and testing

mg_vm_facts mg_vm_look(const mg_vm *vm) {
    mg_vm_facts facts = {vm->memory, vm->cap, vm->allocations, vm->off_cpu, vm->cpu_reads};
    return facts;
}
void mg_vm_collect(mg_vm *vm) { lua_gc(vm->main, LUA_GCCOLLECT); }
const char *mg_lua_release(void) { return LUA_RELEASE; }

void mg_vm_fail_allocation(mg_vm *vm, uint64_t nth) { vm->fail_at = nth == 0 ? 0 : vm->allocations + nth; }

static int mg_stock_task(lua_State *L) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, MG_REF_BASE);
    lua_newtable(L);
    static const struct {
        const char *name;
        lua_CFunction open;
    } libraries[] = {{"string", luaopen_string}, {"table", luaopen_table}};
    for (size_t i = 0; i < 2; i++) {
        // Opening the library of strings replaces their metatable: it is put back.
        lua_pushliteral(L, "");
        lua_getmetatable(L, -1);
        lua_pushcfunction(L, libraries[i].open);
        lua_call(L, 0, 1);
        lua_insert(L, -3);
        lua_setmetatable(L, -2);
        lua_pop(L, 1);
        lua_setfield(L, -2, libraries[i].name);
    }
    lua_setfield(L, -2, "stock");
    return 0;
}

bool mg_vm_define_stock(mg_vm *vm) {
    mg_error_reset(vm);
    mg_task task = {0};
    return mg_protected(vm, mg_stock_task, &task);
}
