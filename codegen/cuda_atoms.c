/* cuda_atoms.c — tile statements as instructions.
 *
 * An atom's block says in plain loops what it does; its addresses are read off the block, by giving the loops'
 * variables the values at which a thread's own address shows. The PTX stands in helper functions (cuda_ops.c). */
#include "codegen/cuda_tma.h"
#include <stdio.h>
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
  if (s->kind == IR_ALLOC && s->body->kind == IR_SEQ) s = s->body->items[s->body->n - 1]; /* behind the operands */
  for (; s->kind == IR_FOR && m.n < IR_COUNT(m.loops); s = s->body) m.loops[m.n++] = s;
  if (s->kind == IR_IF) s = s->body; /* else there is nothing to copy: zeros */
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

/* Neighbours in global memory and a thread's own array. */
static void move(cu_fn *f, const ir_stmt *tile, bool load) {
  meaning m = meaning_of(f, tile);
  ix from = m.store->value;
  int64_t bytes = m.n == 1 ? (m.loops[0]->var->hi + 1) * (int64_t)ir_dtype_bytes(m.store->buf->dtype) : 0;
  if (from->op != IX_LOAD || (bytes != 4 && bytes != 8 && bytes != 16)) ir_bug(f->ctx, "'%s' moves 4, 8 or 16 bytes", tile->atom);
  int scope = cu_scope(f);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *at = address(f, &m, from->u.buf, from->args, NULL);
  cu_line(f, "tn_%s%lld(&%s, &%s);", load ? "load" : "store", (long long)bytes, to, at);
  cu_unscope(f, scope);
}

static void load_vector(cu_fn *f, const ir_stmt *tile) { move(f, tile, true); }
static void store_vector(cu_fn *f, const ir_stmt *tile) { move(f, tile, false); }

/* ---- fragments ---- */

/* The address of a 32-bit word of a fragment. */
static const char *word(cu_fn *f, const meaning *m, const ir_buf *b, const ix *index) {
  const cu_memory *mem = cu_memory_of(f, b);
  ix own[IR_MAX_RANK];
  own[0] = ix_index(f->ctx, 0);
  for (int i = 1; i < b->rank; i++) own[i] = at(f, m, index[i], NULL);
  ix offset = ix_divi(f->ctx, ir_buf_offset(f->ctx, b, own), 4 / (int64_t)ir_dtype_bytes(b->dtype));
  return ir_format(f->ctx, "&%s[%s]", mem->name, cu_value(f, offset));
}

static ix lane(cu_fn *f) {
  ir_var *v = cu_var(f->ctx, "lane", 32);
  cu_bind(f, v, "(int)(threadIdx.x % 32u)");
  return v->expr;
}

/* Loops l, r, e: lane, matrix, element of a word. Lane L gives the address of row L mod 8 of matrix L / 8 in memory,
 * which is where the lane shows that holds that row's first element. */
static void load_matrix(cu_fn *f, const ir_stmt *tile) {
  tn_ctx *ctx = f->ctx;
  meaning m = meaning_of(f, tile);
  bool turned = strstr(tile->atom, "trans") != NULL;
  int scope = cu_scope(f);
  ix me = lane(f), row = ix_remi(ctx, me, 8), load = m.store->value;
  ix values[3] = {turned ? ix_divi(ctx, row, 2) : ix_muli(ctx, row, 4), ix_divi(ctx, me, 8), turned ? ix_remi(ctx, row, 2) : NULL};
  const char *to = word(f, &m, m.store->buf, m.store->index), *from = address(f, &m, load->u.buf, load->args, values);
  cu_line(f, "tn_ldmatrix4%s(%s, &%s);", turned ? "t" : "", to, from);
  cu_unscope(f, scope);
}

/* Loops r, i, c: matrix, row and column of 8 each. Lane L gives the address of row L mod 8 of matrix L / 8; of each matrix it
 * has two neighbours of row L / 4, in an array of its own. */
static void store_matrix(cu_fn *f, const ir_stmt *tile) {
  tn_ctx *ctx = f->ctx;
  meaning m = meaning_of(f, tile);
  ix own = m.store->value;
  if (own->op != IX_LOAD || m.n != 3 || ir_dtype_bytes(m.store->buf->dtype) != 2) ir_bug(ctx, "'%s' stores matrices of 16-bit elements", tile->atom);
  int scope = cu_scope(f);
  ix me = lane(f), values[3] = {ix_divi(ctx, me, 8), ix_remi(ctx, me, 8), NULL};
  const char *to = address(f, &m, m.store->buf, m.store->index, values), *from = address(f, &m, own->u.buf, own->args, NULL);
  cu_line(f, "tn_stmatrix4(&%s, &%s);", to, from);
  cu_unscope(f, scope);
}

/* Loop l: each lane takes the value of the lane that its load names. */
static void shuffle(cu_fn *f, const ir_stmt *tile) {
  tn_ctx *ctx = f->ctx;
  meaning m = meaning_of(f, tile);
  int scope = cu_scope(f);
  ix me = lane(f), load = m.store->value, from = ix_remi(ctx, at(f, &m, load->args[0], &me), 32);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *value = address(f, &m, load->u.buf, load->args, NULL);
  const char *narrow = ir_dtype_bytes(load->u.buf->dtype) < 4 ? "(unsigned)" : "";
  cu_line(f, "%s = __shfl_sync(0xffffffffu, %s%s, %s);", to, narrow, value, cu_value(f, from));
  cu_unscope(f, scope);
}

static void find_loads(ix e, const ir_buf *not, ix *found, int *n) {
  if (e->op == IX_LOAD) {
    for (int i = 0; i < *n; i++)
      if (found[i] == e) return;
    if (e->u.buf != not && *n < 2) found[(*n)++] = e;
    return;
  }
  for (int i = 0; i < e->nargs; i++) find_loads(e->args[i], not, found, n);
}

/* Two values of a thread, of f32 one, as one word of a fragment. */
static void pack_fragment(cu_fn *f, const ir_stmt *tile) {
  meaning m = meaning_of(f, tile);
  ix v = m.store->value, one = ix_index(f->ctx, 1);
  if (m.store->buf->dtype == TN_F32 && !m.n) {
    int scope = cu_scope(f);
    const char *to = word(f, &m, m.store->buf, m.store->index);
    cu_line(f, "*(%s) = __float_as_uint(%s);", to, cu_value(f, v));
    cu_unscope(f, scope);
    return;
  }
  if (v->op != IX_CAST || m.n != 1) ir_bug(f->ctx, "frag.pack narrows two values");
  int scope = cu_scope(f);
  const char *to = word(f, &m, m.store->buf, m.store->index), *lo = cu_value(f, at(f, &m, v->args[0], NULL)), *hi = cu_value(f, at(f, &m, v->args[0], &one));
  cu_line(f, "*(%s) = tn_pack_%s(%s, %s);", to, v->dtype == TN_F16 ? "f16" : "bf16", lo, hi);
  cu_unscope(f, scope);
}

/* The operands of a product whose loops are i, j, k: the one that i moves is A. */
static void factors(cu_fn *f, const meaning *m, ix *a, ix *b) {
  ix loads[2];
  int n = 0;
  find_loads(m->store->value, m->store->buf, loads, &n);
  if (n != 2 || m->n != 3) ir_bug(f->ctx, "a tile of '%s' is not a product", m->store->buf->name);
  bool first = false;
  for (int i = 0; i < loads[0]->nargs; i++) first |= ix_uses_var(loads[0]->args[i], m->loops[0]->var);
  *a = loads[!first];
  *b = loads[first];
}

static void multiply(cu_fn *f, const ir_stmt *tile) {
  meaning m = meaning_of(f, tile);
  ix a, b;
  int scope = cu_scope(f);
  factors(f, &m, &a, &b);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *wa = word(f, &m, a->u.buf, a->args), *wb = word(f, &m, b->u.buf, b->args);
  cu_line(f, "tn_mma_%s(&%s, %s, %s);", strrchr(tile->atom, '.') + 1, to, wa, wb);
  cu_unscope(f, scope);
}

/* On shared memory: descriptors of the tiles' first elements. */
static void group(cu_fn *f, const ir_stmt *tile, const char *how) {
  meaning m = meaning_of(f, tile);
  ix a, b;
  int scope = cu_scope(f);
  factors(f, &m, &a, &b);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *ta = address(f, &m, a->u.buf, a->args, NULL), *tb = address(f, &m, b->u.buf, b->args, NULL);
  cu_line(f, "tn_wgmma_%s%s_%lld(&%s, tn_tile(&%s), tn_tile(&%s));", how, strrchr(tile->atom, '.') + 1, (long long)m.loops[1]->var->hi + 1, to, ta, tb);
  cu_unscope(f, scope);
}

static void multiply_group(cu_fn *f, const ir_stmt *tile) { group(f, tile, ""); }

static void set_group(cu_fn *f, const ir_stmt *tile) { group(f, tile, "set_"); } /* from zeros */

/* A from fragments, B[k, j] of rows along j in shared memory, 64 columns after 64. */
static void multiply_registers(cu_fn *f, const ir_stmt *tile) {
  meaning m = meaning_of(f, tile);
  ix a, b;
  int64_t rows;
  int scope = cu_scope(f);
  factors(f, &m, &a, &b);
  if (b->u.buf->rank != 3 || !ix_const_value(b->u.buf->shape[1], &rows)) ir_bug(f->ctx, "'%s' is no tile of columns", b->u.buf->name);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *wa = word(f, &m, a->u.buf, a->args), *tb = address(f, &m, b->u.buf, b->args, NULL);
  cu_line(f, "tn_wgmma_rs_%s_%lld(&%s, %s, tn_tile_columns(&%s, %lld));", strrchr(tile->atom, '.') + 1, (long long)m.loops[1]->var->hi + 1, to, wa, tb, (long long)rows * 128);
  cu_unscope(f, scope);
}

/* Accumulators stay where they are until here: the compiler does not know when products write them. */
static void hold(cu_fn *f, const ir_stmt *tile) {
  for (int i = 0; i < f->nmems; i++)
    if (f->mems[i].summed) cu_line(f, "tn_hold<%lld>(%s);", (long long)f->mems[i].summed, f->mems[i].name);
}

static void settle(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_settle();"); }

/* exp(a - b) = 2^(a log2(e) - b log2(e)) by the special function unit. */
static void exponential(cu_fn *f, const ir_stmt *tile) {
  meaning m = meaning_of(f, tile);
  ix v = m.store->value;
  if (v->op != IX_EXP || v->args[0]->op != IX_SUB || v->dtype != TN_F32) ir_bug(f->ctx, "'exp' is of a difference");
  int scope = cu_scope(f);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *a = cu_value(f, v->args[0]->args[0]), *b = cu_value(f, v->args[0]->args[1]);
  cu_line(f, "%s = tn_exp2(__fmaf_rn(%s, 1.44269504f, -(%s * 1.44269504f)));", to, a, b);
  cu_unscope(f, scope);
}

/* The larger, in one instruction: which NaN there may be does not matter. */
static void larger(cu_fn *f, const ir_stmt *tile) {
  meaning m = meaning_of(f, tile);
  if (m.store->op != IR_MAX || m.store->buf->dtype != TN_F32) ir_bug(f->ctx, "'max' is of f32");
  int scope = cu_scope(f);
  const char *to = address(f, &m, m.store->buf, m.store->index, NULL), *v = cu_value(f, m.store->value);
  cu_line(f, "%s = fmaxf(%s, %s);", to, to, v);
  cu_unscope(f, scope);
}

/* ---- mbarriers and the TMA unit ---- */

/* What the block stores to registers first, by number: operand 0 is the barrier. */
static ix operand(cu_fn *f, const ir_stmt *tile, int number) {
  const ir_stmt *s = tile->body->body;
  if (tile->body->kind == IR_ALLOC && s->kind == IR_SEQ && number < s->n) s = s->items[number];
  if (tile->body->kind != IR_ALLOC || s->kind != IR_STORE) ir_bug(f->ctx, "atom '%s' has no operand %d", tile->atom, number);
  return s->value;
}

static const char *barrier_of(cu_fn *f, const ir_stmt *tile) {
  ix load = operand(f, tile, 0);
  if (load->op != IX_LOAD) ir_bug(f->ctx, "atom '%s' names no barrier", tile->atom);
  return cu_element(f, load->u.buf, load->args);
}

static const char *integer(cu_fn *f, const ir_stmt *tile, int number) { return ir_format(f->ctx, "(int)%s", cu_value(f, operand(f, tile, number))); }

static int atom_number(const ir_stmt *tile) { return atoi(strchr(tile->atom, ' ') + 1); }

static void mbar_init(cu_fn *f, const ir_stmt *tile) {
  int scope = cu_scope(f);
  const char *at = cu_element(f, tile->body->buf, tile->body->index);
  cu_line(f, "tn_mbar_init(&%s, %d);", at, atom_number(tile));
  cu_unscope(f, scope);
}

static void mbar_expect(cu_fn *f, const ir_stmt *tile) {
  int scope = cu_scope(f);
  const char *at = barrier_of(f, tile);
  cu_line(f, "tn_mbar_expect(&%s, %d);", at, atom_number(tile));
  cu_unscope(f, scope);
}

static void mbar_arrive(cu_fn *f, const ir_stmt *tile) {
  int scope = cu_scope(f);
  const char *at = barrier_of(f, tile);
  cu_line(f, "tn_mbar_arrive(&%s);", at);
  cu_unscope(f, scope);
}

/* On a barrier of block `operand 1` of the cluster: where it lies in this one, and whose it is. */
static void mbar_arrive_remote(cu_fn *f, const ir_stmt *tile) {
  int scope = cu_scope(f);
  ix own = f->rank, peer = operand(f, tile, 1);
  f->rank = peer->op == IX_CAST ? peer->args[0] : peer;
  const char *at = barrier_of(f, tile);
  f->rank = own;
  cu_line(f, "tn_mbar_arrive_remote(&%s, %s);", at, integer(f, tile, 1));
  cu_unscope(f, scope);
}

static void mbar_wait(cu_fn *f, const ir_stmt *tile) {
  int scope = cu_scope(f);
  const char *at = barrier_of(f, tile), *parity = integer(f, tile, 1);
  cu_line(f, "tn_mbar_wait(&%s, %s);", at, parity);
  cu_unscope(f, scope);
}

static const cu_map *map_of(cu_fn *f, const ir_stmt *tile) {
  if (atom_number(tile) >= f->tile->nmaps) ir_bug(f->ctx, "there is no tensor map %d", atom_number(tile));
  return &f->tile->maps[atom_number(tile)];
}

static void tma_load(cu_fn *f, const ir_stmt *tile) {
  int n = atom_number(tile), scope = cu_scope(f);
  const cu_map *map = map_of(f, tile);
  int takes = map->rank + (map->pixels ? map->rank - 2 : 0);
  meaning m = meaning_of(f, tile);
  ir_text t = {.ctx = f->ctx};
  long many = 0, apart = 1, blocks = 0;
  ix index[IR_MAX_RANK];
  memcpy(index, m.store->index, (size_t)m.store->buf->rank * sizeof *index);
  if (sscanf(tile->atom, "tma.multicast %*d %ld %ld", &many, &apart) == 2) index[0] = operand(f, tile, 0)->args[0]; /* of the blocks that get it this one: where its barrier is */
  const char *to = address(f, &m, m.store->buf, index, NULL), *at = barrier_of(f, tile);
  for (int i = 0; i < many; i++) blocks |= 1l << i * apart;
  if (many) ir_put(&t, ", %ld << %s", blocks, cu_value(f, cu_first_peer(f->ctx, f->rank, many, apart)));
  for (int i = 1; i <= takes; i++) ir_put(&t, ", %s", integer(f, tile, i));
  cu_line(f, "tn_tma_%s%s%d(&%s, &%s, tn_map_%d%s);", many ? "all_" : "", map->pixels ? "im2col" : "load", map->rank, to, at, n, ir_text_str(&t));
  cu_unscope(f, scope);
}

static void tma_store(cu_fn *f, const ir_stmt *tile) {
  int scope = cu_scope(f);
  const cu_map *map = map_of(f, tile);
  meaning m = meaning_of(f, tile);
  ir_text t = {.ctx = f->ctx};
  ix load = m.store->value;
  if (load->op != IX_LOAD) ir_bug(f->ctx, "'%s' stores what it computes", tile->atom);
  const char *from = address(f, &m, load->u.buf, load->args, NULL);
  for (int i = 1; i <= map->rank; i++) ir_put(&t, ", %s", integer(f, tile, i));
  cu_line(f, "tn_tma_store%d(&%s, tn_map_%d%s);", map->rank, from, atom_number(tile), ir_text_str(&t));
  cu_unscope(f, scope);
}

/* The body once for each part of the threads, with the loops over threads that the part runs. */
static const ir_stmt *prune(cu_fn *f, const ir_stmt *s) {
  if (!s) return NULL;
  if (s->kind == IR_FOR && s->loop >= IR_WARPGROUP) {
    int64_t width = s->loop == IR_WARPGROUP ? 128 : s->loop == IR_WARP ? 32 : 1, lo, hi;
    if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi)) ir_bug(f->ctx, "loop '%s' over threads has no constant bounds", s->var->name);
    return lo * width >= f->hi || hi * width <= f->lo ? NULL : s;
  }
  if (s->kind == IR_FOR) {
    const ir_stmt *body = prune(f, s->body);
    /* a serial loop around what one warpgroup does alone is that warpgroup's: the others need not count */
    if (body && body->kind == IR_FOR && body->loop == IR_WARPGROUP && s->loop < IR_GRID) return ir_for(f->ctx, body->var, body->lo, body->hi, body->loop, ir_for(f->ctx, s->var, s->lo, s->hi, s->loop, body->body));
    return body ? ir_for(f->ctx, s->var, s->lo, s->hi, s->loop, body) : NULL;
  }
  if (s->kind == IR_LET || s->kind == IR_IF) {
    const ir_stmt *body = prune(f, s->body), *other = prune(f, s->other);
    if (!body) return other ? ir_if(f->ctx, ix_not(f->ctx, s->value), other, NULL) : NULL;
    return s->kind == IR_LET ? ir_let(f->ctx, s->var, s->value, body) : ir_if(f->ctx, s->value, body, other);
  }
  if (s->kind != IR_SEQ) ir_bug(f->ctx, "a statement of all threads within roles");
  const ir_stmt **items = IR_NEW_ARRAY(f->ctx, const ir_stmt *, s->n);
  for (int i = 0; i < s->n; i++) items[i] = prune(f, s->items[i]);
  return ir_seq(f->ctx, s->n, items);
}

/* Threads below T, in equal teams, and the others. */
static void roles(cu_fn *f, const ir_stmt *tile) {
  int border, more, less, teams = 1, lo = f->lo, hi = f->hi;
  if (sscanf(tile->atom, "roles %d %d %d %d", &border, &more, &less, &teams) < 3 || f->level != CU_BLOCK || teams < 1) ir_bug(f->ctx, "'%s' makes no roles", tile->atom);
  f->registers = (int64_t)border * more + (int64_t)(hi - border) * less;
  for (int part = 0; part <= teams; part++) {
    int mems = f->nmems, scope = cu_scope(f);
    f->lo = part < teams ? lo + part * (border - lo) / teams : border;
    f->hi = part < teams ? lo + (part + 1) * (border - lo) / teams : hi;
    cu_open(f, part == teams ? "else" : part ? "else if (threadIdx.x < %d)" : "if (threadIdx.x < %d)", f->hi);
    if (more) cu_line(f, part == teams ? "tn_registers_less<%d>();" : "tn_registers_more<%d>();", part == teams ? less : more);
    const ir_stmt *own = prune(f, tile->body);
    if (own) cu_stmt(f, own);
    cu_close(f);
    cu_unscope(f, scope);
    f->nmems = mems;
  }
  f->lo = lo;
  f->hi = hi;
}

/* ---- order and time ---- */

static void group_fence(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_wgmma_fence();"); }
static void group_commit(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_wgmma_commit();"); }
static void group_wait(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_wgmma_wait<%d>();", atoi(tile->atom + 8)); }
static void proxy_fence(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_fence_proxy();"); }

static void group_sync(cu_fn *f, const ir_stmt *tile) {
  if (f->level != CU_GROUP) ir_bug(f->ctx, "'group.sync' that is no warpgroup's");
  cu_line(f, "tn_group_sync();");
}
static void bulk_commit(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_bulk_commit();"); }
static void bulk_wait(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_bulk_wait<%d>();", atom_number(tile)); }
static void bulk_wait_read(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_bulk_wait_read<%d>();", atom_number(tile)); }

static void cluster_sync(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_cluster_sync();"); }
static void init_fence(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_fence_init();"); }
static void barrier(cu_fn *f, const ir_stmt *tile) { cu_line(f, "__syncthreads();"); }
static void warp_sync(cu_fn *f, const ir_stmt *tile) { cu_line(f, "__syncwarp();"); }
static void copy_commit(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_copy_commit();"); }
static void copy_wait(cu_fn *f, const ir_stmt *tile) { cu_line(f, "tn_copy_wait<%d>();", atoi(tile->atom + 8)); }

static const struct {
  const char *name; /* ended by a blank: numbers follow; by "m64n": the rest of a shape */
  void (*print)(cu_fn *f, const ir_stmt *tile);
} rows[] = {
    {"barrier", barrier},
    {"warp.sync", warp_sync},
    {"cp.async", copy_async},
    {"load", load_vector},
    {"store", store_vector},
    {"shfl", shuffle},
    {"frag.pack", pack_fragment},
    {"ldmatrix.x4", load_matrix},
    {"ldmatrix.x4.trans", load_matrix},
    {"stmatrix.x4", store_matrix},
    {"mma.m16n8k16.f16", multiply},
    {"mma.m16n8k16.bf16", multiply},
    {"mma.m16n8k32.s8", multiply},
    {"mma.m16n8k32.e4m3", multiply},
    {"mma.m16n8k32.e5m2", multiply},
    {"mma.m16n8k32.e4m3e5m2", multiply},
    {"mma.m16n8k32.e5m2e4m3", multiply},
    {"mma.m16n8k8.tf32", multiply},
    {"wgmma.m64n", multiply_group},
    {"wgmma.set.m64n", set_group},
    {"wgmma.rs.m64n", multiply_registers},
    {"hold", hold},
    {"settle", settle},
    {"exp", exponential},
    {"max", larger},
    {"wg.fence", group_fence},
    {"wg.commit", group_commit},
    {"wg.wait ", group_wait},
    {"fence.proxy", proxy_fence},
    {"mbar.init ", mbar_init},
    {"mbar.expect ", mbar_expect},
    {"mbar.arrive", mbar_arrive},
    {"mbar.wait", mbar_wait},
    {"tma.load ", tma_load},
    {"tma.multicast ", tma_load},
    {"tma.store ", tma_store},
    {"mbar.arrive.remote", mbar_arrive_remote},
    {"cluster.sync", cluster_sync},
    {"fence.init", init_fence},
    {"group.sync", group_sync},
    {"bulk.commit", bulk_commit},
    {"bulk.wait ", bulk_wait},
    {"bulk.wait.read ", bulk_wait_read},
    {"roles ", roles},
    {"cp.commit", copy_commit},
    {"cp.wait ", copy_wait},
};

bool cu_atom(cu_fn *f, const ir_stmt *tile) {
  for (int i = 0; i < IR_COUNT(rows); i++) {
    size_t n = strlen(rows[i].name);
    if (rows[i].name[n - 1] == ' ' || rows[i].name[n - 1] == 'n' ? strncmp(tile->atom, rows[i].name, n) : strcmp(tile->atom, rows[i].name)) continue;
    rows[i].print(f, tile);
    return true;
  }
  return false;
}
