/* picked.c — see picked.h. */
#include "ir/picked.h"

typedef struct finding {
  tn_ctx *ctx;
  const ir_var *c;
  ix choice, table; /* index(table[..]) % 16, table[..] */
} finding;

static void find(void *user, ix e) {
  finding *f = user;
  if (e->op != IX_REM || e->dtype != TN_INDEX || !ix_is_int(e->args[1], IR_PICKED_GROUP) || e->args[0]->op != IX_CAST) return;
  ix table = e->args[0]->args[0];
  if (table->op == IX_LOAD && table->dtype == TN_U8 && table->u.buf->constant && ix_uses_var(table, f->c)) f->choice = e, f->table = table;
}

static ix first(void *user, ix load) {
  finding *f = user;
  return load == f->table ? ix_int(f->ctx, TN_U8, 0) : NULL;
}

ix ir_picked_load(tn_ctx *ctx, ix load, const ir_var *c, ix *from) {
  finding f = {.ctx = ctx, .c = c};
  int64_t step;
  if (load->op != IX_LOAD || (load->dtype != TN_U8 && load->dtype != TN_I8)) return NULL;
  for (int i = 0; i < load->nargs; i++) ix_walk(ctx, load->args[i], find, &f);
  if (!f.choice || !ix_affine_in(ir_buf_offset(ctx, f.table->u.buf, f.table->args), c, &step) || step != 1) return NULL;
  *from = ix_subst_loads(ctx, load, first, &f);
  ix behind = ix_sub(ctx, ir_buf_offset(ctx, load->u.buf, load->args), ir_buf_offset(ctx, load->u.buf, (*from)->args));
  return behind == f.choice ? f.table : NULL;
}

static void find_groups(void *user, ix e) {
  const ir_buf **groups = user;
  if (e->op == IX_LOAD && e->dtype == TN_U16 && e->u.buf->constant) *groups = e->u.buf;
}

const ir_buf *ir_picked_groups(tn_ctx *ctx, ix from) {
  const ir_buf *groups = NULL;
  for (int i = 0; i < from->nargs; i++) ix_walk(ctx, from->args[i], find_groups, &groups);
  return groups;
}

bool ir_picked_step(tn_ctx *ctx, ix load, const ir_var *d, int64_t n, const ir_var *i, ix x[2], ix table[2], ix *from) {
  if (n != IR_PICKED_STEP && n != 2 * IR_PICKED_STEP) return false;
  for (int h = 0; h < n / IR_PICKED_STEP; h++) {
    ix at;
    x[h] = ix_subst1(ctx, load, d, ix_addi(ctx, i->expr, h * IR_PICKED_STEP));
    table[h] = ir_picked_load(ctx, x[h], i, &at);
    if (!table[h] || ix_uses_var(at, i) || (h && at != *from)) return false;
    *from = at;
  }
  return n == IR_PICKED_STEP || ir_picked_groups(ctx, *from);
}
