/* ctx.c — arena, protected calls, interned strings, growing text. */
#include "ir/ctx_internal.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* ---- the context's own allocator ---- */

static void *default_alloc(void *user, size_t bytes, void *old) {
  (void)user;
  if (bytes == 0) {
    free(old);
    return NULL;
  }
  return realloc(old, bytes);
}

static void *raw_try(tn_ctx *ctx, size_t bytes) {
  if (ctx->fail_after > 0 && --ctx->fail_after == 0) return NULL;
  return ctx->config.alloc(ctx->config.user, bytes, NULL);
}

void *ir_raw_alloc(tn_ctx *ctx, size_t bytes) {
  void *p = raw_try(ctx, bytes ? bytes : 1);
  if (!p) ir_fail(ctx, TN_ERESOURCE, "out of memory: %zu bytes asked for", bytes);
  return p;
}

void ir_raw_free(tn_ctx *ctx, void *p) {
  if (p) ctx->config.alloc(ctx->config.user, 0, p);
}

void ir_fail_alloc_after(tn_ctx *ctx, long n) { ctx->fail_after = n; }

/* ---- arena ---- */

enum { FIRST_BLOCK = 16 << 10, LARGEST_STEP = 1 << 20 };

struct ir_block {
  ir_block *next;
  size_t used, cap;
  _Alignas(16) char bytes[];
};

static void *arena_take(tn_ctx *ctx, size_t bytes) {
  bytes = (bytes + 15) & ~(size_t)15;
  ir_block *b = ctx->blocks;
  if (!b || b->cap - b->used < bytes) {
    size_t cap = ctx->next_block;
    if (cap < bytes) cap = bytes;
    else if (ctx->next_block < LARGEST_STEP) ctx->next_block *= 2;
    ir_block *fresh = ir_raw_alloc(ctx, sizeof *fresh + cap);
    fresh->cap = cap;
    fresh->used = 0;
    if (b && cap == bytes && b->cap - b->used > 1024) { /* a large node: keep filling the old block */
      fresh->next = b->next;
      b->next = fresh;
    } else {
      fresh->next = b;
      ctx->blocks = fresh;
    }
    ctx->arena_bytes += cap;
    b = fresh;
  }
  void *p = b->bytes + b->used;
  b->used += bytes;
  return p;
}

void *ir_alloc(tn_ctx *ctx, size_t bytes) {
  if (bytes > SIZE_MAX / 2) ir_fail(ctx, TN_ERESOURCE, "out of memory: %zu bytes asked for", bytes);
  void *p = arena_take(ctx, bytes ? bytes : 1);
  memset(p, 0, bytes ? bytes : 1);
  return p;
}

void *ir_alloc_array(tn_ctx *ctx, size_t count, size_t size) {
  if (size && count > SIZE_MAX / 2 / size)
    ir_fail(ctx, TN_ERESOURCE, "out of memory: %zu items of %zu bytes asked for", count, size);
  return ir_alloc(ctx, count * size);
}

void *ir_grow(tn_ctx *ctx, const void *old, size_t old_count, size_t new_count, size_t size) {
  char *p = ir_alloc_array(ctx, new_count, size);
  if (old_count) memcpy(p, old, old_count * size);
  return p;
}

uint32_t ir_next_id(const tn_ctx *ctx) { return ctx->next_id; }
size_t ir_bytes(const tn_ctx *ctx) { return ctx->arena_bytes; }

char *ir_strndup(tn_ctx *ctx, const char *s, size_t n) {
  char *p = ir_alloc(ctx, n + 1);
  memcpy(p, s, n);
  return p;
}

char *ir_strdup(tn_ctx *ctx, const char *s) { return ir_strndup(ctx, s, strlen(s)); }

char *ir_format(tn_ctx *ctx, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  char *p = ir_alloc(ctx, (size_t)n + 1);
  va_start(ap, fmt);
  vsnprintf(p, (size_t)n + 1, fmt, ap);
  va_end(ap);
  return p;
}

/* ---- interned strings: open addressing, a child looks in its parents first ---- */

/* Names come from files, so the hash is keyed: a file of colliding names would make a
 * table of n of them cost n * n. */
static uint64_t string_hash(const tn_ctx *ctx, const char *s) {
  size_t n = strlen(s);
  uint64_t h = ctx->seed[0] ^ n, word;
  for (; n > 8; s += 8, n -= 8) {
    memcpy(&word, s, 8);
    h = ir_mix(h ^ word, ctx->seed[1]);
  }
  word = 0;
  memcpy(&word, s, n);
  return ir_mix(ir_mix(h ^ word, ctx->seed[1]), ctx->seed[0]);
}

static void make_seed(tn_ctx *ctx) {
  if (getrandom(ctx->seed, sizeof ctx->seed, GRND_NONBLOCK) != (ssize_t)sizeof ctx->seed) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    ctx->seed[0] = ir_hash_bytes(&t, sizeof t, (uintptr_t)ctx);
    ctx->seed[1] = ir_hash_bytes(&t, sizeof t, (uintptr_t)&t);
  }
  ctx->seed[0] |= 1; /* a product with 0 would forget its other factor */
  ctx->seed[1] |= 1;
}

static const char *strings_find(const tn_ctx *ctx, const char *s, uint64_t hash) {
  for (; ctx; ctx = ctx->parent) {
    if (!ctx->strings_cap) continue;
    for (size_t i = hash & (ctx->strings_cap - 1); ctx->strings[i]; i = (i + 1) & (ctx->strings_cap - 1))
      if (strcmp(ctx->strings[i], s) == 0) return ctx->strings[i];
  }
  return NULL;
}

const char *ir_intern(tn_ctx *ctx, const char *s) {
  uint64_t hash = string_hash(ctx, s);
  const char *found = strings_find(ctx, s, hash);
  if (found) return found;
  if (ctx->strings_n * 2 >= ctx->strings_cap) {
    size_t cap = ctx->strings_cap ? ctx->strings_cap * 2 : 256;
    const char **table = IR_NEW_ARRAY(ctx, const char *, cap);
    for (size_t i = 0; i < ctx->strings_cap; i++) {
      const char *t = ctx->strings[i];
      if (!t) continue;
      size_t j = string_hash(ctx, t) & (cap - 1);
      while (table[j]) j = (j + 1) & (cap - 1);
      table[j] = t;
    }
    ctx->strings = table;
    ctx->strings_cap = cap;
  }
  const char *copy = ir_strdup(ctx, s);
  size_t i = hash & (ctx->strings_cap - 1);
  while (ctx->strings[i]) i = (i + 1) & (ctx->strings_cap - 1);
  ctx->strings[i] = copy;
  ctx->strings_n++;
  return copy;
}

/* ---- growing text ---- */

static void text_room(ir_text *t, size_t more) {
  if (t->cap - t->n > more) return;
  size_t cap = t->cap ? t->cap : 256;
  while (cap - t->n <= more) cap *= 2;
  t->s = ir_grow(t->ctx, t->s, t->n, cap, 1);
  t->cap = cap;
}

void ir_put_bytes(ir_text *t, const char *s, size_t n) {
  text_room(t, n);
  memcpy(t->s + t->n, s, n);
  t->n += n;
  t->s[t->n] = 0;
}

void ir_put(ir_text *t, const char *fmt, ...) {
  char small[256];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(small, sizeof small, fmt, ap);
  va_end(ap);
  if (n < 0) return;
  if ((size_t)n < sizeof small) {
    ir_put_bytes(t, small, (size_t)n);
    return;
  }
  text_room(t, (size_t)n);
  va_start(ap, fmt);
  vsnprintf(t->s + t->n, (size_t)n + 1, fmt, ap);
  va_end(ap);
  t->n += (size_t)n;
}

const char *ir_text_str(ir_text *t) { return t->s ? t->s : ""; }

/* ---- protected calls and errors ---- */

struct ir_frame {
  jmp_buf env;
  ir_frame *outer;
  size_t deferred; /* registrations below this stay when the frame unwinds */
};

void ir_defer(tn_ctx *ctx, void (*fn)(void *arg), void *arg) {
  if (ctx->deferred_n == ctx->deferred_cap) {
    size_t cap = ctx->deferred_cap ? ctx->deferred_cap * 2 : 16;
    ctx->deferred = ir_grow(ctx, ctx->deferred, ctx->deferred_n, cap, sizeof *ctx->deferred);
    ctx->deferred_cap = cap;
  }
  ctx->deferred[ctx->deferred_n++] = (ir_deferred){fn, arg};
}

void ir_undefer(tn_ctx *ctx, void (*fn)(void *arg), void *arg) {
  for (size_t i = ctx->deferred_n; i-- > 0;)
    if (ctx->deferred[i].fn == fn && ctx->deferred[i].arg == arg) {
      ctx->deferred[i].fn = NULL; /* emptied in place: frames remember positions */
      while (ctx->deferred_n && !ctx->deferred[ctx->deferred_n - 1].fn) ctx->deferred_n--;
      return;
    }
}

static void release_down_to(tn_ctx *ctx, size_t keep) {
  while (ctx->deferred_n > keep) {
    ir_deferred d = ctx->deferred[--ctx->deferred_n];
    if (d.fn) d.fn(d.arg);
  }
}

tn_status ir_protect(tn_ctx *ctx, void (*fn)(tn_ctx *ctx, void *arg), void *arg) {
  ir_frame frame;
  const char *where = ctx->where;
  frame.outer = ctx->frame;
  frame.deferred = ctx->deferred_n;
  ctx->frame = &frame;
  ctx->status = TN_OK;
  if (setjmp(frame.env) == 0) {
    fn(ctx, arg);
    ctx->frame = frame.outer;
    return TN_OK;
  }
  ctx->frame = frame.outer;
  ctx->where = where;
  ctx->memo.busy = false;
  release_down_to(ctx, frame.deferred);
  return ctx->status;
}

static void set_message(tn_ctx *ctx, tn_status status, const char *fmt, va_list ap) {
  ctx->status = status;
  size_t used = 0;
  if (ctx->where)
    used = (size_t)snprintf(ctx->message, sizeof ctx->message, "%s: ", ctx->where);
  if (used > sizeof ctx->message / 2) used = sizeof ctx->message / 2;
  vsnprintf(ctx->message + used, sizeof ctx->message - used, fmt, ap);
}

void ir_fail(tn_ctx *ctx, tn_status status, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  set_message(ctx, status, fmt, ap);
  va_end(ap);
  if (!ctx->frame) abort(); /* an internal function called outside ir_protect */
  longjmp(ctx->frame->env, 1);
}

tn_status ir_error_set(tn_ctx *ctx, tn_status status, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  set_message(ctx, status, fmt, ap);
  va_end(ap);
  return status;
}

void ir_bug_at(tn_ctx *ctx, const char *file, int line, const char *fmt, ...) {
  char text[1024];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  ir_fail(ctx, TN_EINTERNAL, "internal fault at %s:%d: %s", file, line, text);
}

const char *ir_error(const tn_ctx *ctx) { return ctx->message; }
void ir_where(tn_ctx *ctx, const char *where) { ctx->where = where; }

void ir_log(tn_ctx *ctx, const char *fmt, ...) {
  if (!ctx->config.log) return;
  char text[2048];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  ctx->config.log(ctx->config.user, text);
}

/* ---- life of a context ---- */

static tn_ctx *ctx_make(const tn_config *config, tn_ctx *parent) {
  tn_config c = config ? *config : (tn_config){0};
  if (!c.alloc) c.alloc = default_alloc;
  tn_ctx *ctx = c.alloc(c.user, sizeof *ctx, NULL);
  if (!ctx) return NULL;
  memset(ctx, 0, sizeof *ctx);
  ctx->config = c;
  ctx->parent = parent;
  ctx->next_block = FIRST_BLOCK;
  if (parent) {
    ctx->next_id = parent->next_id;
    memcpy(ctx->seed, parent->seed, sizeof ctx->seed);
  } else make_seed(ctx);
  return ctx;
}

tn_ctx *tn_ctx_new(const tn_config *config) { return ctx_make(config, NULL); }
tn_ctx *ir_ctx_like(const tn_ctx *ctx) { return ctx_make(&ctx->config, NULL); }
tn_ctx *ir_ctx_child(tn_ctx *parent) { return ctx_make(&parent->config, parent); }
tn_ctx *ir_ctx_parent(const tn_ctx *ctx) { return ctx->parent; }

void tn_ctx_free(tn_ctx *ctx) {
  if (!ctx) return;
  release_down_to(ctx, 0);
  tn_config c = ctx->config;
  for (ir_block *b = ctx->blocks; b;) {
    ir_block *next = b->next;
    c.alloc(c.user, 0, b);
    b = next;
  }
  c.alloc(c.user, 0, ctx);
}

const char *tn_error(const tn_ctx *ctx) { return ctx->message; }
