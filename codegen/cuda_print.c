/* cuda_print.c — a tile program as CUDA C.
 *
 * Each nest of grid loops is a global function: its blocks are counted in blockIdx.x. Below it every thread of a
 * block runs all statements; a loop of kind warpgroup, warp or lane is not a loop any more but the thread's own
 * number, under a condition where it does not cover the block. Buffers declared between grid and threads are
 * shared memory, or arrays private to threads, the first axis of which is the thread. */
#include "codegen/cuda_internal.h"
#include <string.h>

enum { PRIVATE_BYTES = 4096 }; /* of one private array; larger ones lie in global memory */

/* ---- buffers ---- */

/* Room for a buffer: its size, or the largest that it may have. */
static int64_t elements_of(cu_fn *f, const ir_buf *b) {
  ix n = ir_buf_elements(f->ctx, b);
  if (n->hi < 0 || n->hi > 1 << 28) ir_fail(f->ctx, TN_EUNSUPPORTED, "buffer '%s' has no bounded size", b->name);
  return n->hi;
}

/* Whether an atom of that kind stores to the buffer. */
static bool filled_by(const ir_stmt *s, const ir_buf *b, bool (*kind)(const char *atom)) {
  if (!s) return false;
  if (s->kind == IR_TILE && kind(s->atom)) {
    const ir_stmt *in = s->body;
    while (in->kind == IR_FOR) in = in->body;
    return in->buf == b;
  }
  for (int i = 0; i < s->n; i++)
    if (filled_by(s->items[i], b, kind)) return true;
  return filled_by(s->body, b, kind) || filled_by(s->other, b, kind);
}

static bool is_fragment(const char *atom) { return strncmp(atom, "ldmatrix", 8) == 0 || strcmp(atom, "frag.pack") == 0; }
static bool is_summed(const char *atom) { return strncmp(atom, "wgmma.", 6) == 0; }

static void declare(cu_fn *f, const ir_stmt *scope) {
  ir_buf *b = scope->buf;
  tn_ctx *ctx = f->ctx;
  cu_memory m = {.buf = b, .name = ir_format(ctx, "%s_%u", cu_var_name(ctx, &(ir_var){.name = b->name, .id = b->id}), b->id)};
  int64_t n = elements_of(f, b), size = (int64_t)ir_dtype_bytes(b->dtype);
  const char *type = cu_storage_type(b->dtype);
  int blocks = f->cluster;
  if (b->space == IR_SHARED) {
    n /= blocks;
    m.share = blocks > 1 ? n : 0;
    m.shared_at = (f->shared_bytes + 1023) / 1024 * 1024;
    if (n * size < 1024) m.shared_at = (f->shared_bytes + 15) / 16 * 16;
    f->shared_bytes = m.shared_at + n * size;
    cu_line(f, "%s *const %s = (%s *)(tn_memory + %lld);", type, m.name, type, (long long)m.shared_at);
  } else {
    m.per_thread = f->level < CU_THREAD;
    if (m.per_thread) {
      int64_t threads = 0;
      if (!b->rank || !ix_const_value(b->shape[0], &threads) || threads != (int64_t)f->tile->threads * blocks)
        ir_bug(ctx, "buffer '%s' of a block has no axis of threads", b->name);
      n /= threads;
    }
    if (m.per_thread && filled_by(scope->body, b, is_summed)) m.summed = n;
    if (n * size > PRIVATE_BYTES) {
      int64_t at = f->scratch_bytes;
      f->scratch_bytes += (n * size + 15) / 16 * 16 * f->tile->threads;
      cu_line(f, "%s *const %s = (%s *)(tn_scratch + (%lld + threadIdx.x * %lldll));", type, m.name, type, (long long)at, (long long)((n * size + 15) / 16 * 16));
    } else if (m.per_thread && filled_by(scope->body, b, is_fragment)) { /* words of packed elements, which only atoms touch */
      m.packed = true;
      cu_line(f, "unsigned %s[%lld];", m.name, (long long)(n * size + 3) / 4);
    } else cu_line(f, "%s %s[%lld];", type, m.name, (long long)(n > 0 ? n : 1));
  }
  IR_PUSH(ctx, f->mems, f->nmems, m);
}

/* ---- statements ---- */

static void store(cu_fn *f, const ir_stmt *s) {
  static const ir_opcode ops[] = {[IR_ADD] = IX_ADD, [IR_MUL] = IX_MUL, [IR_MAX] = IX_MAX, [IR_MIN] = IX_MIN, [IR_OR] = IX_OR, [IR_AND] = IX_AND};
  if (f->level < CU_THREAD) ir_bug(f->ctx, "a store to '%s' that is no thread's", s->buf->name);
  int scope = cu_scope(f);
  ix v = s->value;
  if (s->op != IR_SET) v = ix_binary(f->ctx, ops[s->op], ix_load(f->ctx, s->buf, s->index), v);
  const char *value = cu_value(f, ix_expand(f->ctx, v));
  const char *where = cu_element(f, s->buf, s->index);
  cu_line(f, "%s = %s;", where, cu_to_storage(f->ctx, s->buf->dtype, value));
  cu_unscope(f, scope);
}

static const char *value_of(cu_fn *f, ix e) { return cu_value(f, ix_expand(f->ctx, e)); }

/* A loop that is the thread's number: its variable is a constant of the thread. */
static void bound_loop(cu_fn *f, const ir_stmt *s) {
  cu_level outer = f->level, inner = s->loop == IR_WARPGROUP ? CU_GROUP : s->loop == IR_WARP ? CU_WARP : CU_THREAD;
  if (outer >= inner || outer == CU_GRID) ir_bug(f->ctx, "loop '%s' is not within what it divides", s->var->name);
  int64_t lo, hi, width = inner == CU_GROUP ? 128 : inner == CU_WARP ? 32 : 1, whole = outer == CU_GROUP ? 128 : 32;
  if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi)) ir_bug(f->ctx, "loop '%s' over threads has no constant bounds", s->var->name);
  const char *n = cu_var_name(f->ctx, s->var);
  cu_brace(f);
  const char *in = outer == CU_BLOCK ? "(int)threadIdx.x" : outer == CU_GROUP ? "(int)threadIdx.x % 128" : "(int)threadIdx.x % 32";
  /* the same for all lanes of a warp: said so that the compiler keeps it in a uniform register */
  if (width > 1) cu_line(f, "const int %s = __shfl_sync(0xffffffffu, (%s) / %d, 0);", n, in, (int)width);
  else cu_line(f, "const int %s = %s;", n, in);
  int64_t from = outer == CU_BLOCK ? f->lo / width : 0, to = outer == CU_BLOCK ? f->hi / width : whole / width;
  bool guard = lo > from || hi < to;
  if (guard) cu_open(f, "if (%s >= %lld && %s < %lld)", n, (long long)lo, n, (long long)hi);
  int scope = cu_scope(f);
  cu_bind(f, s->var, n);
  f->level = inner;
  cu_stmt(f, s->body);
  f->level = outer;
  cu_unscope(f, scope);
  if (guard) cu_close(f);
  cu_close(f);
}

/* What each block of the cluster does: its number among them. */
static void cluster_loop(cu_fn *f, const ir_stmt *s) {
  int64_t lo, hi;
  if (f->level != CU_BLOCK || f->rank || !ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi) || lo || hi != f->cluster) ir_bug(f->ctx, "loop '%s' is not one over the blocks of a cluster", s->var->name);
  cu_brace(f);
  cu_line(f, "const int %s = (int)(blockIdx.x %% %du);", cu_var_name(f->ctx, s->var), f->cluster);
  int scope = cu_scope(f);
  cu_bind(f, s->var, cu_var_name(f->ctx, s->var));
  f->rank = s->var->expr;
  cu_stmt(f, s->body);
  f->rank = NULL;
  cu_unscope(f, scope);
  cu_close(f);
}

static void loop(cu_fn *f, const ir_stmt *s) {
  if (s->loop >= IR_WARPGROUP) {
    bound_loop(f, s);
    return;
  }
  if (s->loop == IR_CLUSTER) {
    cluster_loop(f, s);
    return;
  }
  int outer = cu_scope(f);
  const char *lo = value_of(f, s->lo), *hi = value_of(f, s->hi), *n = cu_var_name(f->ctx, s->var);
  const char *type = s->var->lo >= INT32_MIN + 1 && s->var->hi < INT32_MAX ? "int" : "long long";
  int64_t l0, h0;
  bool few = s->loop == IR_VECTOR && ix_const_value(s->lo, &l0) && ix_const_value(s->hi, &h0) && h0 - l0 <= 16;
  if (s->loop == IR_UNROLL || few) cu_line(f, "#pragma unroll");
  else cu_line(f, f->level < CU_THREAD ? "#pragma unroll 1" : "#pragma unroll 4");
  cu_open(f, "for (%s %s = %s; %s < %s; %s++)", type, n, lo, n, hi, n);
  int scope = cu_scope(f);
  cu_bind(f, s->var, n);
  cu_stmt(f, s->body);
  cu_unscope(f, scope);
  cu_close(f);
  cu_unscope(f, outer);
}

static void block(cu_fn *f, const ir_stmt *s) {
  int scope = cu_scope(f), mems = f->nmems;
  cu_stmt(f, s);
  cu_unscope(f, scope);
  f->nmems = mems;
}

void cu_stmt(cu_fn *f, const ir_stmt *s) {
  if (!s) return;
  switch (s->kind) {
  case IR_FOR: loop(f, s); return;
  case IR_WHILE: {
    cu_open(f, "for (;;)");
    int scope = cu_scope(f);
    cu_line(f, "if (!(%s)) break;", value_of(f, s->value));
    cu_unscope(f, scope);
    block(f, s->body);
    cu_close(f);
    return;
  }
  case IR_IF: {
    int scope = cu_scope(f);
    const char *cond = value_of(f, s->value);
    cu_unscope(f, scope);
    cu_open(f, "if (%s)", cond);
    block(f, s->body);
    cu_close(f);
    if (s->other) {
      cu_open(f, "else");
      block(f, s->other);
      cu_close(f);
    }
    return;
  }
  case IR_LET: {
    int scope = cu_scope(f);
    const char *v = value_of(f, s->value), *n = cu_var_name(f->ctx, s->var);
    cu_unscope(f, scope);
    cu_line(f, "const %s %s = %s;", cu_narrow(s->var->expr) ? "int" : cu_c_type(s->var->dtype), n, v);
    cu_bind(f, s->var, n);
    block(f, s->body);
    cu_unscope(f, scope);
    return;
  }
  case IR_ALLOC: {
    int mems = f->nmems;
    declare(f, s);
    block(f, s->body);
    f->nmems = mems;
    return;
  }
  case IR_STORE: store(f, s); return;
  case IR_SEQ:
    for (int i = 0; i < s->n; i++) {
      if (s->items[i]->kind == IR_LET || s->items[i]->kind == IR_ALLOC) { /* their names end with them */
        cu_brace(f);
        cu_stmt(f, s->items[i]);
        cu_close(f);
      } else cu_stmt(f, s->items[i]);
    }
    return;
  case IR_TILE:
    if (!cu_atom(f, s)) block(f, s->body);
    return;
  }
}

/* ---- launches ---- */

static const char *parameters(cu_fn *f, bool scratch) {
  tn_ctx *ctx = f->ctx;
  const ir_kernel *k = f->tile->kernel;
  ir_text t = {.ctx = ctx};
  for (int i = 0; i < k->nbufs; i++) {
    const ir_buf *b = k->bufs[i];
    ir_put(&t, "%s%s%s *__restrict__ p_%s", i ? ", " : "", b->access == IR_IN ? "const " : "", cu_storage_type(b->dtype), f->mems[i].name);
  }
  if (scratch) ir_put(&t, "%schar *__restrict__ tn_all_scratch", t.n ? ", " : "");
  for (int i = 0; i < f->tile->nmaps; i++) ir_put(&t, "%sconst tn_map __grid_constant__ tn_map_%d", t.n ? ", " : "", i);
  for (int i = 0; i < k->ndims; i++) ir_put(&t, "%sconst long long %s", t.n ? ", " : "", cu_var_name(ctx, k->dims[i]));
  return ir_text_str(&t);
}

/* The block's number as the variables of the grid's loops, the innermost running fastest. */
static ix grid_loops(cu_fn *f, const ir_stmt **s) {
  tn_ctx *ctx = f->ctx;
  const ir_stmt *nest[LW_MAX_LOOPS];
  int n = 0;
  for (; *s && (*s)->kind == IR_FOR && (*s)->loop == IR_GRID && n < LW_MAX_LOOPS; *s = (*s)->body) nest[n++] = *s;
  ix blocks = ix_index(ctx, 1);
  for (int i = 0; i < n; i++) blocks = ix_mul(ctx, blocks, ix_max(ctx, ix_sub(ctx, nest[i]->hi, nest[i]->lo), ix_index(ctx, 0)));
  if (n) cu_line(f, f->cluster > 1 ? "unsigned tn_rest = blockIdx.x / %du;" : "unsigned tn_rest = blockIdx.x;", f->cluster);
  for (int i = n - 1; i >= 0; i--) {
    const char *name = cu_var_name(ctx, nest[i]->var);
    const char *lo = value_of(f, nest[i]->lo), *extent = value_of(f, ix_sub(ctx, nest[i]->hi, nest[i]->lo));
    if (i) {
      cu_line(f, "const int %s = (int)(tn_rest %% (unsigned)%s) + %s;", name, extent, lo);
      cu_line(f, "tn_rest /= (unsigned)%s;", extent);
    } else cu_line(f, "const int %s = (int)tn_rest + %s;", name, lo);
    cu_bind(f, nest[i]->var, name);
  }
  return ix_muli(ctx, blocks, f->cluster);
}

/* What launches pass on: arrays declared outside the grid, at the start of the scratch that all blocks share. */
static void declare_passed(cu_fn *f, const ir_stmt *scope) {
  const ir_buf *b = scope->buf;
  cu_memory m = {.buf = b, .name = ir_format(f->ctx, "%s_%u", cu_var_name(f->ctx, &(ir_var){.name = b->name, .id = b->id}), b->id), .shared_at = f->passed_bytes};
  f->passed_bytes += (elements_of(f, b) * (int64_t)ir_dtype_bytes(b->dtype) + 255) / 256 * 256;
  IR_PUSH(f->ctx, f->mems, f->nmems, m);
}

bool cu_clustered(const ir_stmt *s) {
  if (!s) return false;
  bool any = (s->kind == IR_FOR && s->loop == IR_CLUSTER) || cu_clustered(s->body) || cu_clustered(s->other);
  for (int i = 0; i < s->n && !any; i++) any = cu_clustered(s->items[i]);
  return any;
}

static cu_launch launch(cu_fn *f, const ir_stmt *s, const char *symbol, ir_text *all) {
  tn_ctx *ctx = f->ctx;
  cu_launch l = {.symbol = symbol, .threads = f->tile->threads, .nmaps = f->tile->nmaps, .maps = f->tile->maps, .cluster = cu_clustered(s) ? f->tile->cluster : 1};
  f->cluster = l.cluster;
  f->out = (ir_text){.ctx = ctx};
  f->indent = 1;
  f->temps = f->nnames = 0;
  f->shared_bytes = f->scratch_bytes = f->registers = 0;
  f->lo = 0;
  f->hi = f->tile->threads;
  f->level = CU_BLOCK;
  for (int i = 0; i < f->tile->kernel->ndims; i++) cu_bind(f, f->tile->kernel->dims[i], cu_var_name(ctx, f->tile->kernel->dims[i]));
  l.grid = grid_loops(f, &s);
  block(f, s);
  const char *room = f->registers ? ", 1" : f->tile->blocks ? ir_format(ctx, ", %d", f->tile->blocks) : ""; /* setmaxnreg counts on what the block starts with */
  const char *cluster = l.cluster > 1 ? ir_format(ctx, "__cluster_dims__(%d, 1, 1) ", l.cluster) : "";
  ir_put(all, "extern \"C\" __global__ void %s__launch_bounds__(%d%s) %s(%s) {\n", cluster, l.threads, room, symbol, parameters(f, f->scratch_bytes + f->passed_bytes > 0));
  for (int i = 0; i < f->tile->kernel->nbufs; i++) { /* memory of parameters starts at multiples of 16 bytes: loads may join */
    const ir_buf *b = f->tile->kernel->bufs[i];
    const char *c = b->access == IR_IN ? "const " : "", *type = cu_storage_type(b->dtype), *name = f->mems[i].name;
    ir_put(all, "  %s%s *__restrict__ %s = (%s%s *)__builtin_assume_aligned(p_%s, 16);\n", c, type, name, c, type, name);
  }
  if (f->shared_bytes) ir_put(all, "  extern __shared__ __align__(1024) unsigned char tn_memory[];\n");
  if (f->scratch_bytes) ir_put(all, "  char *const tn_scratch = tn_all_scratch + %lldll + blockIdx.x * %lldll;\n", (long long)f->passed_bytes, (long long)f->scratch_bytes);
  for (int i = f->tile->kernel->nbufs; i < f->nmems; i++)
    ir_put(all, "  %s *const %s = (%s *)(tn_all_scratch + %lldll);\n", cu_storage_type(f->mems[i].buf->dtype), f->mems[i].name, cu_storage_type(f->mems[i].buf->dtype), (long long)f->mems[i].shared_at);
  ir_put(all, "%s}\n", ir_text_str(&f->out));
  l.shared_bytes = f->shared_bytes;
  l.scratch_bytes = f->scratch_bytes;
  l.passed_bytes = f->passed_bytes;
  l.registers = f->registers;
  return l;
}

const cu_code *cu_print(tn_ctx *ctx, const cu_target *t, const cu_tile *tile, const char *symbol) {
  cu_fn f = {.ctx = ctx, .t = t, .tile = tile};
  const ir_kernel *k = tile->kernel;
  for (int i = 0; i < k->nbufs; i++) {
    cu_memory m = {.buf = k->bufs[i], .name = cu_var_name(ctx, &(ir_var){.name = k->bufs[i]->name, .id = k->bufs[i]->id})};
    IR_PUSH(ctx, f.mems, f.nmems, m);
  }
  cu_code *c = IR_NEW(ctx, cu_code);
  const ir_stmt *body = k->body;
  for (; body && body->kind == IR_ALLOC; body = body->body) declare_passed(&f, body);
  int n = !body ? 0 : body->kind == IR_SEQ ? body->n : 1;
  c->launches = IR_NEW_ARRAY(ctx, cu_launch, n + 1);
  ir_text all = {.ctx = ctx};
  for (int i = 0; i < n; i++)
    c->launches[c->nlaunches++] = launch(&f, body->kind == IR_SEQ ? body->items[i] : body, n > 1 ? ir_format(ctx, "%s_%d", symbol, i) : symbol, &all);
  const char *help = cu_helpers(ctx, ir_text_str(&all));
  c->source = ir_format(ctx, "%s%s", help, ir_text_str(&all));
  c->body = c->source + strlen(help);
  return c;
}
