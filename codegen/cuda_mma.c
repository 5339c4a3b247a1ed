/* cuda_mma.c — products on tensor cores by mma.sync: BM x BN a block, WM x WN a warp, fragments by ldmatrix.
 *
 * Fragments are arrays of threads as PTX's "Matrix Fragments for mma.m16n8k16" (.m16n8k32 for bytes and 8-bit floats, .m16n8k8 for TF32)
 * lays them out: in matrix r of an ldmatrix, lane l holds row l / 4 and `pack` elements of k from (l mod 4) pack on. */
#include "codegen/cuda_product.h"

static const char *type_name(tn_dtype t) { return t == TN_F16 ? "f16" : t == TN_BF16 ? "bf16" : t == TN_F8E4M3FN ? "e4m3" : t == TN_F8E5M2 ? "e5m2" : NULL; }

const char *cu_tensor_core_type(const cu_product *g) {
  const char *a = type_name(cu_operand_dtype(g, &g->a)), *b = type_name(cu_operand_dtype(g, &g->b));
  return !a || !cu_mixed(g) ? a : ir_format(g->ctx, "%s%s", a, b);
}

static ix warp_row(const cu_product *g, const cu_mma *x, ix w) { return ix_muli(g->ctx, ix_divi(g->ctx, w, x->warps_n), x->wm); }
static ix warp_column(const cu_product *g, const cu_mma *x, ix w) { return ix_muli(g->ctx, ix_remi(g->ctx, w, x->warps_n), x->wn); }
static ix thread_of(tn_ctx *ctx, ix w, ix lane) { return ix_add(ctx, ix_muli(ctx, w, 32), lane); }

/* Four 8 x 8 (bytes: 8 x 16) matrices of a tile of 16 rows: of A rows 0-7 and 8-15 at the first half of k, then at the
 * second; of B both halves of k for columns 0-7, then for 8-15. */
const ir_stmt *cu_mma_load(cu_product *g, const cu_mma *x, const cu_operand *o, ir_buf *to, ix w, ix piece, ix row0, ix k0, ix stage) {
  tn_ctx *ctx = g->ctx;
  int id = g->copies++;
  ir_var *l = cu_var(ctx, ir_format(ctx, "l.%d", id), 32), *r = cu_var(ctx, ir_format(ctx, "r.%d", id), 4), *e = cu_var(ctx, ir_format(ctx, "e.%d", id), x->pack);
  bool a = o == &g->a;
  ix rows = ix_muli(ctx, a ? ix_remi(ctx, r->expr, 2) : ix_divi(ctx, r->expr, 2), 8), half = ix_muli(ctx, a ? ix_divi(ctx, r->expr, 2) : ix_remi(ctx, r->expr, 2), x->depth / 2);
  ix row = ix_add(ctx, ix_add(ctx, row0, rows), ix_divi(ctx, l->expr, 4));
  ix k = ix_add(ctx, ix_add(ctx, k0, half), ix_add(ctx, ix_muli(ctx, ix_remi(ctx, l->expr, 4), x->pack), e->expr));
  ix at[3] = {thread_of(ctx, w, l->expr), piece, ix_add(ctx, ix_muli(ctx, r->expr, x->pack), e->expr)};
  const ir_stmt *s = ir_store(ctx, to, at, IR_SET, cu_product_at(g, o, stage, row, k));
  return ir_tile(ctx, o->inner_k ? "ldmatrix.x4" : "ldmatrix.x4.trans", cu_loop(ctx, l, IR_SERIAL, cu_loop(ctx, r, IR_SERIAL, cu_loop(ctx, e, IR_SERIAL, s))));
}

/* The nearest number of 10 bits of fraction, ties away from zero: cvt.rna.tf32. */
static ix tf32(tn_ctx *ctx, ix x) {
  ix bits = ix_binary(ctx, IX_AND, ix_binary(ctx, IX_ADD, ix_bitcast(ctx, TN_U32, x), ix_int(ctx, TN_U32, 0x1000)), ix_int(ctx, TN_U32, 0xffffe000));
  return ix_select(ctx, ix_eq(ctx, x, x), ix_bitcast(ctx, TN_F32, bits), x);
}

/* acc[i, j] += sum over k of A[i, k] B[k, j] on fragments. */
const ir_stmt *cu_mma_multiply(tn_ctx *ctx, const cu_mma *x, ix w, ix a_piece, ix b_piece, ix mi, ix nj) {
  uint32_t id = ir_next_id(ctx);
  ir_var *i = cu_var(ctx, ir_format(ctx, "mma.i.%u", id), 16), *j = cu_var(ctx, ir_format(ctx, "mma.j.%u", id), 8), *k = cu_var(ctx, ir_format(ctx, "mma.k.%u", id), x->depth);
  ix lane_i = ix_muli(ctx, ix_remi(ctx, i->expr, 8), 4), k_lane = ix_divi(ctx, ix_remi(ctx, k->expr, x->depth / 2), x->pack), k_in = ix_remi(ctx, k->expr, x->pack);
  ix k_half = ix_divi(ctx, k->expr, x->depth / 2), down = ix_divi(ctx, i->expr, 8);
  ix at_a[3] = {thread_of(ctx, w, ix_add(ctx, lane_i, k_lane)), a_piece, ix_add(ctx, ix_muli(ctx, ix_add(ctx, ix_muli(ctx, k_half, 2), down), x->pack), k_in)};
  ix at_b[3] = {thread_of(ctx, w, ix_add(ctx, ix_muli(ctx, j->expr, 4), k_lane)), b_piece,
                ix_add(ctx, ix_muli(ctx, ix_add(ctx, ix_muli(ctx, ix_remi(ctx, nj, 2), 2), k_half), x->pack), k_in)};
  ix at_c[4] = {thread_of(ctx, w, ix_add(ctx, lane_i, ix_divi(ctx, j->expr, 2))), mi, nj, ix_add(ctx, ix_muli(ctx, down, 2), ix_remi(ctx, j->expr, 2))};
  tn_dtype t = x->acc->dtype;
  ix a = ix_cast(ctx, t, ix_load(ctx, x->fa, at_a)), b = ix_cast(ctx, t, ix_load(ctx, x->fb, at_b)), c = ix_load(ctx, x->acc, at_c);
  if (x->tf32) a = tf32(ctx, a), b = tf32(ctx, b);
  const ir_stmt *s = ir_store(ctx, x->acc, at_c, IR_SET, ir_is_float(t) ? ix_fma(ctx, a, b, c) : ix_add(ctx, c, ix_mul(ctx, a, b)));
  return ir_tile(ctx, x->atom, cu_loop(ctx, i, IR_SERIAL, cu_loop(ctx, j, IR_SERIAL, cu_loop(ctx, k, IR_SERIAL, s))));
}

static const ir_stmt *step(cu_product *g, ix stage, void *user) {
  tn_ctx *ctx = g->ctx;
  cu_mma *x = user;
  ir_var *kin = cu_var(ctx, "k.in", g->bk / x->depth), *w = cu_var(ctx, "warp", x->warps);
  ir_var *ma = cu_var(ctx, "load.m", x->wm / 16), *nb = cu_var(ctx, "load.n", x->wn / 16), *mi = cu_var(ctx, "mul.m", x->wm / 16), *nj = cu_var(ctx, "mul.n", x->wn / 8);
  ix k0 = ix_muli(ctx, kin->expr, x->depth);
  const ir_stmt *parts[3] = {
      cu_loop(ctx, ma, IR_UNROLL, cu_mma_load(g, x, &g->a, x->fa, w->expr, ma->expr, ix_add(ctx, warp_row(g, x, w->expr), ix_muli(ctx, ma->expr, 16)), k0, stage)),
      cu_loop(ctx, nb, IR_UNROLL, cu_mma_load(g, x, &g->b, x->fb, w->expr, nb->expr, ix_add(ctx, warp_column(g, x, w->expr), ix_muli(ctx, nb->expr, 16)), k0, stage)),
      cu_loop(ctx, mi, IR_UNROLL, cu_loop(ctx, nj, IR_UNROLL, cu_mma_multiply(ctx, x, w->expr, mi->expr, ix_divi(ctx, nj->expr, 2), mi->expr, nj->expr)))};
  return cu_loop(ctx, w, IR_WARP, cu_loop(ctx, kin, IR_UNROLL, ir_seq(ctx, 3, parts)));
}

/* Each sum of a thread: set (value null), or stored. */
static const ir_stmt *each_sum(cu_product *g, cu_mma *x, const char *name, bool end) {
  tn_ctx *ctx = g->ctx;
  ir_var *t = cu_var(ctx, ir_format(ctx, "%s.t", name), g->threads), *mi = cu_var(ctx, ir_format(ctx, "%s.m", name), x->wm / 16);
  ir_var *nj = cu_var(ctx, ir_format(ctx, "%s.n", name), x->wn / 8), *e = cu_var(ctx, ir_format(ctx, "%s.e", name), 4);
  ix at[4] = {t->expr, mi->expr, nj->expr, e->expr}, w = ix_divi(ctx, t->expr, 32), lane = ix_remi(ctx, t->expr, 32);
  ix row = ix_add(ctx, ix_add(ctx, warp_row(g, x, w), ix_muli(ctx, mi->expr, 16)), ix_add(ctx, ix_divi(ctx, lane, 4), ix_muli(ctx, ix_divi(ctx, e->expr, 2), 8)));
  ix column = ix_add(ctx, ix_add(ctx, warp_column(g, x, w), ix_muli(ctx, nj->expr, 8)), ix_add(ctx, ix_muli(ctx, ix_remi(ctx, lane, 4), 2), ix_remi(ctx, e->expr, 2)));
  const ir_stmt *s = end ? cu_product_store(g, row, column, ix_load(ctx, x->acc, at)) : ir_store(ctx, x->acc, at, IR_SET, g->init);
  return cu_loop(ctx, t, IR_LANE, cu_loop(ctx, mi, IR_UNROLL, cu_loop(ctx, nj, IR_UNROLL, cu_loop(ctx, e, IR_UNROLL, s))));
}

static cu_choice default_tile(const cu_target *t, const cu_product *g) {
  static const int64_t rows[][6] = {{128, 128, 32, 64, 32, 4}, {64, 128, 32, 32, 32, 4}, {64, 64, 32, 32, 32, 4}, {32, 64, 32, 16, 32, 4}, {16, 64, 32, 16, 16, 4}};
  cu_choice c = {.n = 6};
  for (int i = 0; i < IR_COUNT(rows); i++) {
    int64_t m = (g->a.rows.extent + rows[i][0] - 1) / rows[i][0], n = (g->b.rows.extent + rows[i][1] - 1) / rows[i][1];
    for (int k = 0; k < 6; k++) c.arg[k] = rows[i][k];
    if (m * n * g->batch.extent >= t->multiprocessors) break;
  }
  if (ir_dtype_bytes(g->dtype) == 1) c.arg[2] *= 2;
  return c;
}

static const cu_tile *on_tensor_cores(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *choice, bool tf32, const char **reason) {
  cu_product g;
  if (!cu_product_sized(ctx, k, true, &g, reason)) return NULL;
  tn_dtype acc = g.acc->dtype;
  if (ir_is_byte_float(g.dtype) && t->sm < 89 && acc == TN_F32) { /* f16 holds all numbers of 8-bit floats: widened on the way to shared memory */
    g.a.value = ix_cast(ctx, TN_F16, g.a.value);
    g.b.value = ix_cast(ctx, TN_F16, g.b.value);
    g.dtype = TN_F16;
  }
  const char *name = tf32 ? g.dtype == TN_F32 && acc == TN_F32 ? "tf32" : NULL : g.dtype == TN_I8 && acc == TN_I32 ? "s8" : acc == TN_F32 ? cu_tensor_core_type(&g) : NULL;
  if (!name) return *reason = "no tensor core instruction for these dtypes", NULL;
  cu_choice c = choice->n ? *choice : default_tile(t, &g);
  if (!choice->n && (g.a.rows.extent < 4 || g.b.rows.extent < 4 || g.sum.extent < 8)) return *reason = "too few rows for tiles", NULL;
  cu_mma x = {.wm = c.arg[3], .wn = c.arg[4], .pack = 4 / (int)ir_dtype_bytes(g.dtype), .tf32 = tf32};
  x.depth = 8 * x.pack;
  x.atom = ir_format(ctx, "mma.m16n8k%lld.%s", (long long)x.depth, name);
  g.a.block = c.arg[0];
  g.b.block = c.arg[1];
  g.bk = c.arg[2];
  g.stages = (int)c.arg[5];
  g.pad = 16 / (int)ir_dtype_bytes(g.dtype);
  if (c.n != 6 || !x.wm || !x.wn || x.wm % 16 || x.wn % 16 || g.a.block % x.wm || g.b.block % x.wn || !g.bk || g.bk % x.depth || g.stages < 2 || g.stages > 8 || x.wm * x.wn > 64 * 128)
    return *reason = "mma: BM BN BK WM WN STAGES, which do not fit", NULL;
  x.warps_n = g.b.block / x.wn;
  x.warps = g.a.block / x.wm * x.warps_n;
  g.threads = 32 * x.warps;
  if (g.threads > 1024) return *reason = "mma: too many warps", NULL;
  g.along_k = x.pack != 2; /* ldmatrix turns 16-bit elements only */
  cu_product_tiles(&g);
  if (cu_product_shared_bytes(&g) > t->shared_bytes) return *reason = "mma: more shared memory than a block has", NULL;
  ix n[4] = {ix_index(ctx, g.threads), ix_index(ctx, x.wm / 16), ix_index(ctx, 4 * x.pack)};
  x.fa = ir_buf_new(ctx, "frag.a", g.a.shared->dtype, 3, n, NULL, IR_LOCAL);
  n[1] = ix_index(ctx, x.wn / 16);
  x.fb = ir_buf_new(ctx, "frag.b", g.b.shared->dtype, 3, n, NULL, IR_LOCAL);
  x.acc = ir_buf_new(ctx, "sum", acc, 4, (ix[]){n[0], ix_index(ctx, x.wm / 16), ix_index(ctx, x.wn / 8), ix_index(ctx, 4)}, NULL, IR_LOCAL);
  const ir_stmt *s = cu_product_pipeline(&g, each_sum(&g, &x, "set", false), step, &x, each_sum(&g, &x, "end", true));
  s = ir_alloc_stmt(ctx, x.fa, ir_alloc_stmt(ctx, x.fb, ir_alloc_stmt(ctx, x.acc, s)));
  s = cu_product_grid(&g, s);
  return cu_tile_new(ctx, k, s, (int)g.threads, ir_format(ctx, "%s %lld %lld %lld %lld %lld %d", tf32 ? "tf32" : "mma", (long long)g.a.block, (long long)g.b.block, (long long)g.bk, (long long)x.wm, (long long)x.wn, g.stages));
}

const cu_tile *cu_schedule_mma(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *choice, const char **reason) { return on_tensor_cores(ctx, t, k, choice, false, reason); }

const cu_tile *cu_schedule_tf32(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *choice, const char **reason) {
  if (!choice->n) return *reason = "TF32 rounds its operands: only when it is asked for", NULL;
  return on_tensor_cores(ctx, t, k, choice, true, reason);
}
