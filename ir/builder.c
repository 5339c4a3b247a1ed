/* builder.c — building statements in the order in which they run.
 *
 * An open block is a list of items. A let or an alloc is an item whose scope is
 * the rest of its block; when the block closes, the list is folded from its end:
 *
 *   s0  let x = e  s1  alloc b  s2   ->   seq(s0, let(x, e, seq(s1, alloc(b, s2))))
 */
#include "ir/ir.h"

typedef struct item {
  enum { ITEM_STMT, ITEM_LET, ITEM_ALLOC } kind;
  const ir_stmt *stmt;
  ir_var *var;
  ix value;
  ir_buf *buf;
} item;

typedef struct open_block {
  enum { OPEN_ROOT, OPEN_FOR, OPEN_WHILE, OPEN_IF, OPEN_ELSE } kind;
  ir_var *var;         /* for */
  ix lo, hi;           /* for */
  ix cond;             /* while, if */
  const ir_stmt *then; /* else */
  item *items;
  int n;
  int reserved; /* size of items, kept when a block is reused */
} open_block;

typedef struct taken_name {
  const char *name; /* interned */
  int next;         /* number to try for the next of this name */
} taken_name;

struct ir_builder {
  tn_ctx *ctx;
  open_block *blocks;
  int depth; /* open blocks, the root included */
  int reserved;
  taken_name *taken; /* open addressing by pointer */
  size_t ntaken, taken_cap;
};

/* ---- names ---- */

static taken_name *name_slot(ir_builder *b, const char *name) {
  size_t i = ((uintptr_t)name >> 4) * 0x9e3779b97f4a7c15u >> 20 & (b->taken_cap - 1);
  while (b->taken[i].name && b->taken[i].name != name) i = (i + 1) & (b->taken_cap - 1);
  return &b->taken[i];
}

static void name_take(ir_builder *b, const char *name) {
  if (b->ntaken * 2 >= b->taken_cap) {
    taken_name *old = b->taken;
    size_t old_cap = b->taken_cap;
    b->taken_cap = old_cap ? old_cap * 2 : 32;
    b->taken = IR_NEW_ARRAY(b->ctx, taken_name, b->taken_cap);
    for (size_t i = 0; i < old_cap; i++)
      if (old[i].name) *name_slot(b, old[i].name) = old[i];
  }
  taken_name *t = name_slot(b, name);
  if (t->name) return;
  *t = (taken_name){name, 1};
  b->ntaken++;
}

/* `name`, or the first free of name1, name2, ... */
static const char *name_unique(ir_builder *b, const char *name) {
  const char *s = ir_intern(b->ctx, name && *name ? name : "v");
  if (b->taken_cap && name_slot(b, s)->name) {
    const char *base = s;
    do {
      int number = name_slot(b, base)->next++;
      s = ir_intern(b->ctx, ir_format(b->ctx, "%s%d", base, number));
    } while (name_slot(b, s)->name);
  }
  name_take(b, s);
  return s;
}

static void names_of(ir_builder *b, const ir_stmt *s) {
  if (!s) return;
  if (s->kind == IR_FOR || s->kind == IR_LET) name_take(b, ir_intern(b->ctx, s->var->name));
  if (s->kind == IR_ALLOC) name_take(b, ir_intern(b->ctx, s->buf->name));
  for (int i = 0; i < s->n; i++) names_of(b, s->items[i]);
  names_of(b, s->body);
  names_of(b, s->other);
}

/* ---- blocks ---- */

static open_block *top(ir_builder *b) { return &b->blocks[b->depth - 1]; }

static open_block *block_open(ir_builder *b, int kind) {
  if (b->depth == b->reserved) {
    int more = b->reserved ? 2 * b->reserved : 8;
    b->blocks = ir_grow(b->ctx, b->blocks, (size_t)b->reserved, (size_t)more, sizeof *b->blocks);
    b->reserved = more;
  }
  open_block *o = &b->blocks[b->depth++];
  item *items = o->items;
  int reserved = o->reserved;
  *o = (open_block){.items = items, .reserved = reserved};
  o->kind = kind;
  return o;
}

static void block_add(ir_builder *b, item it) {
  open_block *o = top(b);
  if (o->n == o->reserved) {
    int more = o->reserved ? 2 * o->reserved : 8;
    o->items = ir_grow(b->ctx, o->items, (size_t)o->n, (size_t)more, sizeof *o->items);
    o->reserved = more;
  }
  o->items[o->n++] = it;
}

static const ir_stmt *block_fold(ir_builder *b, const open_block *o) {
  const ir_stmt **run = IR_NEW_ARRAY(b->ctx, const ir_stmt *, o->n + 1);
  const ir_stmt *rest = NULL; /* everything after the run of plain statements */
  int end = o->n;             /* items [end, n) are in `rest` */
  for (int i = o->n - 1; i >= -1; i--) {
    if (i >= 0 && o->items[i].kind == ITEM_STMT) continue;
    int count = 0; /* items i+1 .. end-1 are plain statements */
    for (int j = i + 1; j < end; j++) run[count++] = o->items[j].stmt;
    run[count++] = rest;
    rest = ir_seq(b->ctx, count, run);
    if (i < 0) break;
    rest = o->items[i].kind == ITEM_LET ? ir_let(b->ctx, o->items[i].var, o->items[i].value, rest)
                                        : ir_alloc_stmt(b->ctx, o->items[i].buf, rest);
    end = i;
  }
  return rest;
}

ir_builder *ir_builder_new(tn_ctx *ctx) {
  ir_builder *b = IR_NEW(ctx, ir_builder);
  b->ctx = ctx;
  block_open(b, OPEN_ROOT);
  return b;
}

/* Proven bounds of a loop variable over [lo, hi). A range that may be empty
 * proves nothing wrong: then the body does not run. */
static void loop_bounds(ix lo, ix hi, int64_t *min, int64_t *max) {
  *min = lo->lo;
  *max = hi->hi == INT64_MAX || hi->hi == INT64_MIN ? INT64_MAX : hi->hi - 1;
  if (*max < *min) *max = *min;
}

ix ib_for(ir_builder *b, const char *name, ix lo, ix hi) {
  int64_t min, max;
  loop_bounds(lo, hi, &min, &max);
  ir_var *v = ir_var_new(b->ctx, name_unique(b, name), TN_INDEX, min, max);
  open_block *o = block_open(b, OPEN_FOR);
  o->var = v;
  o->lo = lo;
  o->hi = hi;
  return v->expr;
}

ix ib_loop(ir_builder *b, const char *name, ix extent) { return ib_for(b, name, ix_index(b->ctx, 0), extent); }
void ib_while(ir_builder *b, ix cond) { block_open(b, OPEN_WHILE)->cond = cond; }
void ib_if(ir_builder *b, ix cond) { block_open(b, OPEN_IF)->cond = cond; }

void ib_else(ir_builder *b) {
  open_block *o = top(b);
  if (o->kind != OPEN_IF) ir_bug(b->ctx, "ib_else outside of an if");
  o->then = block_fold(b, o);
  o->kind = OPEN_ELSE;
  o->n = 0;
}

void ib_end(ir_builder *b) {
  open_block *o = top(b);
  if (o->kind == OPEN_ROOT) ir_bug(b->ctx, "ib_end without an open block");
  const ir_stmt *body = block_fold(b, o), *s = NULL;
  switch (o->kind) {
    case OPEN_FOR: s = ir_for(b->ctx, o->var, o->lo, o->hi, IR_SERIAL, body); break;
    case OPEN_WHILE: s = ir_while(b->ctx, o->cond, body); break;
    case OPEN_IF: s = ir_if(b->ctx, o->cond, body, NULL); break;
    case OPEN_ELSE: s = ir_if(b->ctx, o->cond, o->then, body); break;
    case OPEN_ROOT: break;
  }
  b->depth--;
  if (s) block_add(b, (item){.kind = ITEM_STMT, .stmt = s});
}

void ib_end_n(ir_builder *b, int n) {
  while (n-- > 0) ib_end(b);
}

/* ---- items ---- */

ix ib_let(ir_builder *b, const char *name, ix value) {
  bool index = value->dtype == TN_INDEX;
  ir_var *v = ir_var_new(b->ctx, name_unique(b, name), (tn_dtype)value->dtype,
                         index ? value->lo : INT64_MIN, index ? value->hi : INT64_MAX);
  block_add(b, (item){.kind = ITEM_LET, .var = v, .value = value});
  return v->expr;
}

ir_buf *ib_alloc(ir_builder *b, const char *name, tn_dtype t, int rank, const ix *shape, ir_space space) {
  ir_buf *buf = ir_buf_new(b->ctx, name_unique(b, name), t, rank, shape, NULL, space);
  block_add(b, (item){.kind = ITEM_ALLOC, .buf = buf});
  return buf;
}

ir_buf *ib_local(ir_builder *b, const char *name, tn_dtype t, ix init) {
  ir_buf *buf = ib_alloc(b, name, t, 0, NULL, IR_REGISTER);
  if (init) ib_set(b, buf, init);
  return buf;
}

void ib_update(ir_builder *b, ir_buf *buf, const ix *index, ir_store_op op, ix value) {
  block_add(b, (item){.kind = ITEM_STMT, .stmt = ir_store(b->ctx, buf, index, op, value)});
}
void ib_store(ir_builder *b, ir_buf *buf, const ix *index, ix value) { ib_update(b, buf, index, IR_SET, value); }
void ib_set(ir_builder *b, ir_buf *local, ix value) { ib_update(b, local, NULL, IR_SET, value); }
ix ib_load(ir_builder *b, ir_buf *buf, const ix *index) { return ix_load(b->ctx, buf, index); }
ix ib_get(ir_builder *b, ir_buf *local) { return ix_load(b->ctx, local, NULL); }

void ib_stmt(ir_builder *b, const ir_stmt *s) {
  if (!s) return;
  names_of(b, s);
  block_add(b, (item){.kind = ITEM_STMT, .stmt = s});
}

const ir_stmt *ib_finish(ir_builder *b) {
  if (b->depth != 1) ir_bug(b->ctx, "%d blocks are still open", b->depth - 1);
  const ir_stmt *s = block_fold(b, top(b));
  top(b)->n = 0;
  return s;
}
