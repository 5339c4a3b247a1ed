/* cuda_atoms.c — tile statements as instructions.
 *
 * An atom's block says in plain loops what it does; its addresses are read off the block, by giving the loops'
 * variables the values at which a thread's own address shows. The PTX stands in helper functions (cuda_ops.c). */
#include "codegen/cuda_internal.h"
#include <stdlib.h>
#include <string.h>

/* The store below loops, with the loops in order. */
typedef struct meaning {
  const ir_stmt *loops[8], *store;
  int n;
} meaning;

static meaning meaning_of(cu_fn *f, const ir_stmt *tile) {
  meaning m = {0};
  const ir_stmt *s = tile->body;
  for (; s->kind == IR_FOR && m.n < IR_COUNT(m.loops); s = s->body) m.loops[m.n++] = s;
  if (s->kind != IR_STORE) ir_bug(f->ctx, "atom '%s' is not a store within loops", tile->atom);
  m.store = s;
  return m;
}

/* e with the loops' variables at these values (null: 0). */
static ix at(cu_fn *f, const meaning *m, ix e, const ix *values) {
  for (int i = 0; i < m->n; i++) e = ix_subst1(f->ctx, e, m->loops[i]->var, values && values[i] ? values[i] : ix_index(f->ctx, 0));
  return e;
}

static const char *address(cu_fn *f, const meaning *m, const ir_buf *b, const ix *index, const ix *values) {
  ix moved[IR_MAX_RANK];
  for (int i = 0; i < b->rank; i++) moved[i] = at(f, m, index[i], values);
  return cu_element(f, b, moved);
}

static void copy_async(cu_fn *f, const ir_stmt *tile) {
  meaning m = meaning_of(f, tile);
  ix load = m.store->value;
  if (load->op != IX_LOAD || m.store->buf->space != IR_SHARED) ir_bug(f->ctx, "cp.async copies from global to shared memory");
  int64_t n = m.n ? m.loops[0]->var->hi + 1 : 1, bytes = n * (int64_t)ir_dtype_bytes(m.store->buf->dtype);
  if (bytes != 4 && bytes != 8 && bytes != 16) ir_bug(f->ctx, "cp.async of %lld bytes", (long long)bytes);
  int scope = cu_scope(f);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *from = address(f, &m, load->u.buf, load->args, NULL);
  cu_line(f, "tn_copy%lld(&%s, &%s);", (long long)bytes, to, from);
  cu_unscope(f, scope);
}

static void barrier(cu_fn *f, const ir_stmt *tile) { cu_line(f, "__syncthreads();"); }
static void warp_sync(cu_fn *f, const ir_stmt *tile) { cu_line(f, "__syncwarp();"); }
static void copy_commit(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_copy_commit();"); }
static void copy_wait(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_copy_wait<%d>();", atoi(tile->atom + 8)); }

static const struct {
  const char *name; /* ended by a blank: numbers follow */
  void (*print)(cu_fn *f, const ir_stmt *tile);
} rows[] = {
    {"barrier", barrier},
    {"warp.sync", warp_sync},
    {"cp.async", copy_async},
    {"cp.commit", copy_commit},
    {"cp.wait ", copy_wait},
};

bool cu_atom(cu_fn *f, const ir_stmt *tile) {
  for (int i = 0; i < IR_COUNT(rows); i++) {
    size_t n = strlen(rows[i].name);
    if (rows[i].name[n - 1] == ' ' ? strncmp(tile->atom, rows[i].name, n) : strcmp(tile->atom, rows[i].name)) continue;
    rows[i].print(f, tile);
    return true;
  }
  return false;
}
