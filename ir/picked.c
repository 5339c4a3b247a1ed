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
