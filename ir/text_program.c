/* text_program.c — programs as text, and back.
 *
 *   program := "program" NAME "{" { bytes | counts | dim | slot | kernel } "pack" insts "run" insts ["init" insts] "}"
 *   bytes   := "bytes" "weights" INT "arena" INT "state" INT "pack_arena" INT "live_peak" INT
 *   counts  := "counts" "inputs" INT "outputs" INT "raw" INT
 *   dim     := "dim" NAME range ["of" INT {"," INT}]     # these sizes alone
 *   slot    := "slot" NAME ":" type place "bytes" INT ["file" STRING]     # extents: numbers, or of dims, or max(0, min(N, NAME[]))
 *   place   := ("input" | "output" | "raw") INT ["@" INT] ["inout"] ["step" INT] | ("weights" | "arena" | "state") "@" INT
 *   kernel  := a kernel, see ir/ir.h  ["schedule" steps] ["lowered" kernel]
 *   steps   := "{" lines of the schedule "}" on a line of its own | STRING
 *   insts   := "{" { inst } "}"
 *   inst    := "call" ref "(" [ref {"," ref}] ")" [STRING] ["on" STRING]      # name, device
 *            | "copy" ref "->" ref [STRING]
 *            | "let" NAME [":" DTYPE [range]] "=" expr
 *            | "if" expr insts ["else" insts] | "while" expr insts | "for" NAME "<" expr insts
 *   ref     := NAME | place kind ":" NAME | "@" INT     # as much as it takes to be unique
 *
 * A load in an expression is one of a slot, by its name (the first of that name).
 *
 * Data is not part of the text: raw slots get theirs through ir_data_source, or stay
 * without. A kernel with a schedule is read without its scheduled form (`lowered` is
 * null until lower/ applies the steps); with none, `lowered` is the kernel itself. */
#include "ir/text.h"
#include <string.h>

enum { SLOT_KINDS = IR_SLOT_STATE + 1, MAX_INSTS_DEPTH = 200 };

static const char *const kind_names[SLOT_KINDS] = {"input", "output", "raw", "weights", "arena", "state"};

static bool is_numbered(ir_slot_kind k) { return k == IR_SLOT_INPUT || k == IR_SLOT_OUTPUT || k == IR_SLOT_RAW; }

/* ============================================================ reading ==== */

typedef struct reader {
  ir_lexer *l;
  tn_ctx *ctx;
  ir_program *p;
  const ir_data_source *data;
  ir_env env;
  ir_map slots;     /* name to number + 1 of the first slot of that name */
  ir_map slots_of[SLOT_KINDS];
  ir_map kernels;   /* name to number + 1 */
  ir_buf **bufs;    /* by slot: for loads in expressions */
  ir_var **vars;    /* lets in scope, innermost last */
  int nvars, vars_cap;
} reader;

static void *number(int i) { return (void *)(uintptr_t)(unsigned)(i + 1); }
static int of_number(void *p) { return (int)(uintptr_t)p - 1; }

static ir_var *find_var(void *user, const char *name) {
  reader *r = user;
  for (int i = r->nvars - 1; i >= 0; i--)
    if (r->vars[i]->name == name) return r->vars[i];
  return NULL;
}

static ir_buf *find_buf(void *user, const char *name) {
  reader *r = user;
  int i = of_number(ir_map_get(&r->slots, name));
  if (i < 0) return NULL;
  if (!r->bufs[i]) {
    const ir_slot *s = &r->p->slots[i];
    ix shape[IR_MAX_RANK];
    for (int a = 0; a < s->rank; a++) shape[a] = ix_index(r->ctx, s->dims[a]);
    r->bufs[i] = ir_buf_new(r->ctx, name, s->dtype, s->rank, shape, s->layout, IR_GLOBAL);
    r->bufs[i]->access = IR_IN;
  }
  return r->bufs[i];
}

static int64_t read_size(ir_lexer *l, const char *what) {
  const char *at = l->at;
  int64_t v = ir_lex_int(l, what);
  if (v < 0) ir_lex_fail_at(l, at, "a number of at least 0 is needed");
  return v;
}

static int read_count(ir_lexer *l, const char *what) {
  const char *at = l->at;
  int64_t v = read_size(l, what);
  if (v > INT32_MAX / 2) ir_lex_fail_at(l, at, "the number is too large");
  return (int)v;
}

static int at_kind(const ir_lexer *l) {
  for (int k = 0; k < SLOT_KINDS; k++)
    if (ir_lex_at(l, kind_names[k])) return k;
  return -1;
}

static void read_bytes(reader *r) {
  ir_lexer *l = r->l;
  ir_program *p = r->p;
  struct {
    const char *word;
    int64_t *value;
  } sizes[] = {{"weights", &p->weights_bytes}, {"arena", &p->arena_bytes}, {"state", &p->state_bytes},
               {"pack_arena", &p->pack_arena_bytes}, {"live_peak", &p->live_peak_bytes}};
  for (;;) {
    int i = 0;
    while (i < IR_COUNT(sizes) && !ir_lex_at(l, sizes[i].word)) i++;
    if (i == IR_COUNT(sizes)) return;
    ir_lex_next(l);
    *sizes[i].value = read_size(l, "a number of bytes");
  }
}

static void read_counts(reader *r) {
  ir_lexer *l = r->l;
  for (;;) {
    if (ir_lex_accept(l, "inputs")) r->p->ninputs = read_count(l, "the number of inputs");
    else if (ir_lex_accept(l, "outputs")) r->p->noutputs = read_count(l, "the number of outputs");
    else if (ir_lex_accept(l, "raw")) r->p->nraw = read_count(l, "the number of raw constants");
    else return;
  }
}

static void enter(reader *r, ir_var *v) {
  if (r->nvars == r->vars_cap) {
    int cap = r->vars_cap ? 2 * r->vars_cap : 16;
    r->vars = ir_grow(r->ctx, r->vars, (size_t)r->vars_cap, (size_t)cap, sizeof *r->vars);
    r->vars_cap = cap;
  }
  r->vars[r->nvars++] = v;
}

static void read_dim(reader *r) {
  ir_lexer *l = r->l;
  int64_t lo, hi, *sizes = NULL;
  const char *name = ir_lex_name(l, "the name of the dimension");
  ir_read_range(l, &lo, &hi);
  ir_program_dim d = {.var = ir_var_new(r->ctx, name, TN_INDEX, lo, hi)};
  for (bool more = ir_lex_accept(l, "of"); more; more = ir_lex_accept(l, ",")) {
    int64_t size = read_size(l, "a size");
    IR_PUSH(r->ctx, sizes, d.nsizes, size);
  }
  d.sizes = sizes;
  IR_PUSH(r->ctx, r->p->dims, r->p->ndims, d);
  enter(r, d.var);
}

/* Extents that are no numbers: s->dims is then the most that they can be. What they may read is for ir_program_verify. */
static void read_sizes(reader *r, const ir_type *t, ir_slot *s, const char *at) {
  ix *sizes = NULL;
  for (int i = 0; i < t->rank; i++) {
    if (ix_const_value(t->shape[i], &s->dims[i])) continue;
    if (t->shape[i]->lo < 0 || t->shape[i]->hi > IR_MAX_BYTES) ir_lex_fail_at(r->l, at, "an extent must be a number, or depend on dimensions of the program");
    if (!sizes) sizes = memcpy(IR_NEW_ARRAY(r->ctx, ix, t->rank), t->shape, (size_t)t->rank * sizeof *sizes);
    s->dims[i] = t->shape[i]->hi;
  }
  s->sizes = sizes;
}

static void read_slot(reader *r) {
  ir_lexer *l = r->l;
  ir_program *p = r->p;
  ir_slot s = {.name = ir_lex_name(l, "the name of the slot")};
  ir_lex_expect(l, ":");
  ir_type t;
  const char *at = l->at;
  ir_read_type(l, p->ndims || p->nslots ? &r->env : NULL, &t);
  s.dtype = t.dtype;
  s.rank = t.rank;
  s.layout = t.layout;
  read_sizes(r, &t, &s, at);
  int kind = at_kind(l);
  if (kind < 0) ir_lex_expected(l, "input, output, raw, weights, arena or state");
  ir_lex_next(l);
  s.kind = (ir_slot_kind)kind;
  if (is_numbered(s.kind)) {
    s.index = read_count(l, "the number of the tensor");
    int *n = kind == IR_SLOT_INPUT ? &p->ninputs : kind == IR_SLOT_OUTPUT ? &p->noutputs : &p->nraw;
    if (s.index >= *n) *n = s.index + 1;
    if (ir_lex_accept(l, "@")) s.offset = read_size(l, "an offset in bytes");
    s.inout = kind == IR_SLOT_INPUT && ir_lex_accept(l, "inout");
    if (ir_lex_accept(l, "step")) s.step = read_size(l, "a step in bytes");
  } else {
    ir_lex_expect(l, "@");
    s.offset = read_size(l, "an offset in bytes");
  }
  ir_lex_expect(l, "bytes");
  s.bytes = read_size(l, "the size in bytes");
  if (ir_lex_accept(l, "file")) s.file = ir_lex_string(l, "the name of the file");
  if (s.kind == IR_SLOT_RAW && r->data) s.data = r->data->find(r->data->user, s.name, s.bytes, 0);
  if (!ir_map_get(&r->slots, s.name)) ir_map_set(&r->slots, s.name, number(p->nslots));
  /* ambiguous among its kind: 0, which no reference by name may find */
  bool again = ir_map_get(&r->slots_of[kind], s.name) != NULL;
  ir_map_set(&r->slots_of[kind], s.name, again ? number(-2) : number(p->nslots));
  int n = p->nslots;
  IR_PUSH(r->ctx, r->bufs, n, NULL);
  IR_PUSH(r->ctx, p->slots, p->nslots, s);
}

/* The lines between "{" and "}", trimmed, each ended by a line end. */
static const char *read_steps(ir_lexer *l) {
  if (l->token == IR_T_STRING) return ir_lex_string(l, "the schedule");
  if (!ir_lex_at(l, "{")) ir_lex_expected(l, "the schedule in braces or as a string");
  ir_text t = {.ctx = l->ctx};
  const char *p = l->p;
  for (;;) {
    const char *end = p + strcspn(p, "\n"), *a = p, *b = end;
    while (a < b && (*a == ' ' || *a == '\t' || *a == '\r')) a++;
    while (b > a && (b[-1] == ' ' || b[-1] == '\t' || b[-1] == '\r')) b--;
    if (b - a == 1 && *a == '}') {
      l->p = a + 1;
      break;
    }
    if (*end == 0) {
      l->at = l->p = end;
      l->token = IR_T_END;
      ir_lex_expected(l, "a '}' on a line of its own, after the schedule");
    }
    if (b > a) {
      ir_put_bytes(&t, a, (size_t)(b - a));
      ir_put_bytes(&t, "\n", 1);
    }
    p = end + 1;
  }
  ir_lex_next(l);
  return ir_text_str(&t);
}

static void read_kernel(reader *r) {
  ir_lexer *l = r->l;
  ir_program_kernel k = {.schedule = ""};
  k.kernel = ir_read_kernel(l);
  if (ir_lex_accept(l, "schedule")) k.schedule = read_steps(l);
  if (ir_lex_accept(l, "lowered")) k.lowered = ir_read_kernel(l);
  else if (*k.schedule == 0) k.lowered = k.kernel;
  bool again = ir_map_get(&r->kernels, k.kernel->name) != NULL;
  ir_map_set(&r->kernels, k.kernel->name, again ? number(-2) : number(r->p->nkernels));
  IR_PUSH(r->ctx, r->p->kernels, r->p->nkernels, k);
}

static int read_at(reader *r, int count, const char *what) {
  const char *at = r->l->at;
  int64_t v = ir_lex_int(r->l, "a number after '@'");
  if (v < 0 || v >= count) ir_lex_fail_at(r->l, at, "there are %d %s, counted from 0", count, what);
  return (int)v;
}

static int read_slot_ref(reader *r) {
  ir_lexer *l = r->l;
  if (ir_lex_accept(l, "@")) return read_at(r, r->p->nslots, "slots");
  const char *at = l->at;
  int kind = at_kind(l), found = -1, matches = 0;
  const char *name = ir_lex_name(l, "a slot");
  if (kind >= 0 && ir_lex_accept(l, ":")) {
    name = ir_lex_name(l, "the name of a slot");
    found = of_number(ir_map_get(&r->slots_of[kind], name));
    matches = found == -1 ? 0 : found < 0 ? 2 : 1;
  } else {
    for (int k = 0; k < SLOT_KINDS; k++) {
      int i = of_number(ir_map_get(&r->slots_of[k], name));
      if (i == -1) continue;
      found = i;
      matches += i < 0 ? 2 : 1;
    }
  }
  if (matches == 0) ir_lex_fail_at(l, at, "there is no slot '%.100s'", name);
  if (matches > 1) ir_lex_fail_at(l, at, "several slots are named '%.100s'; write kind:name, or @ and the number of the slot", name);
  return found;
}

static int read_insts(reader *r, ir_inst **out);

static void read_call(reader *r, ir_inst *c) {
  ir_lexer *l = r->l;
  const char *at = l->at;
  c->kind = IR_CALL;
  if (ir_lex_accept(l, "@")) {
    c->kernel = read_at(r, r->p->nkernels, "kernels");
  } else {
    const char *name = ir_lex_name(l, "the name of a kernel");
    int found = of_number(ir_map_get(&r->kernels, name));
    if (found == -1) ir_lex_fail_at(l, at, "there is no kernel '%.100s'", name);
    if (found < 0) ir_lex_fail_at(l, at, "several kernels are named '%.100s'; write @ and the number of the kernel", name);
    c->kernel = found;
  }
  ir_lex_expect(l, "(");
  int *args = NULL, n = 0;
  while (!ir_lex_at(l, ")")) {
    if (n) ir_lex_expect(l, ",");
    int slot = read_slot_ref(r);
    IR_PUSH(r->ctx, args, n, slot);
  }
  const ir_kernel *k = r->p->kernels[c->kernel].kernel;
  if (n != k->nbufs) ir_lex_fail(l, "kernel '%.100s' takes %d buffers, %d are given", k->name, k->nbufs, n);
  ir_lex_next(l);
  c->args = args;
  c->nargs = n;
  if (l->token == IR_T_STRING) c->name = ir_lex_string(l, "a name");
  if (ir_lex_accept(l, "on")) c->device = ir_lex_string(l, "the name of a device");
}

static void read_let(reader *r, ir_inst *c) {
  ir_lexer *l = r->l;
  const char *name = ir_lex_name(l, "the name of the variable");
  tn_dtype t = TN_NONE;
  int64_t lo = INT64_MIN, hi = INT64_MAX;
  bool range = false;
  if (ir_lex_accept(l, ":")) {
    t = ir_lex_dtype(l);
    range = t == TN_INDEX && ir_lex_at(l, "[");
    if (range) ir_read_range(l, &lo, &hi);
  }
  ir_lex_expect(l, "=");
  c->kind = IR_INST_LET;
  c->value = ir_read_expr(l, &r->env, t);
  if (c->value->dtype == TN_INDEX && !range) lo = c->value->lo, hi = c->value->hi;
  c->var = ir_var_new(r->ctx, name, (tn_dtype)c->value->dtype, lo, hi);
  enter(r, c->var);
}

static void read_for(reader *r, ir_inst *c) {
  ir_lexer *l = r->l;
  const char *name = ir_lex_name(l, "the name of the counter");
  ir_lex_expect(l, "<");
  c->kind = IR_INST_FOR;
  c->value = ir_read_expr(l, &r->env, TN_INDEX);
  c->var = ir_var_new(r->ctx, name, TN_INDEX, 0, c->value->hi > 0 ? c->value->hi - 1 : 0);
  int scope = r->nvars;
  enter(r, c->var);
  c->nbody = read_insts(r, &c->body);
  r->nvars = scope;
}

static ir_inst read_inst(reader *r) {
  ir_lexer *l = r->l;
  ir_inst c = {0};
  if (ir_lex_accept(l, "call")) {
    read_call(r, &c);
  } else if (ir_lex_accept(l, "copy")) {
    c.kind = IR_COPY_SLOT;
    c.nargs = 2;
    c.args = IR_NEW_ARRAY(r->ctx, int, 2);
    c.args[1] = read_slot_ref(r);
    ir_lex_expect(l, "->");
    c.args[0] = read_slot_ref(r);
    if (l->token == IR_T_STRING) c.name = ir_lex_string(l, "a name");
  } else if (ir_lex_accept(l, "let")) {
    read_let(r, &c);
  } else if (ir_lex_accept(l, "for")) {
    read_for(r, &c);
  } else if (ir_lex_at(l, "if") || ir_lex_at(l, "while")) {
    c.kind = ir_lex_at(l, "if") ? IR_INST_IF : IR_INST_WHILE;
    ir_lex_next(l);
    c.value = ir_read_expr(l, &r->env, TN_BOOL);
    c.nbody = read_insts(r, &c.body);
    if (c.kind == IR_INST_IF && ir_lex_accept(l, "else")) c.nother = read_insts(r, &c.other);
  } else {
    ir_lex_expected(l, "call, copy, let, if, while, for or '}'");
  }
  return c;
}

static int read_insts(reader *r, ir_inst **out) {
  ir_lexer *l = r->l;
  ir_inst *items = NULL;
  int n = 0, scope = r->nvars;
  ir_lex_expect(l, "{");
  ir_lex_enter(l);
  if (l->depth > MAX_INSTS_DEPTH) ir_lex_fail(l, "nested more than %d deep", MAX_INSTS_DEPTH);
  while (!ir_lex_accept(l, "}")) {
    ir_inst c = read_inst(r);
    IR_PUSH(r->ctx, items, n, c);
  }
  ir_lex_leave(l);
  r->nvars = scope;
  *out = items;
  return n;
}

static void parse_program(ir_lexer *l, void *arg) {
  reader *r = arg;
  ir_program *p = r->p;
  ir_lex_expect(l, "program");
  p->name = ir_lex_name(l, "the name of the program");
  ir_lex_expect(l, "{");
  bool packed = false, ran = false, started = false;
  while (!ir_lex_accept(l, "}")) {
    if (ir_lex_at(l, "kernel")) {
      read_kernel(r);
    } else if (ir_lex_accept(l, "slot")) {
      if (packed || ran) ir_lex_fail(l, "slots come before pack and run");
      read_slot(r);
    } else if (ir_lex_accept(l, "dim")) {
      if (packed || ran || p->nslots) ir_lex_fail(l, "dimensions come before slots");
      read_dim(r);
    } else if (ir_lex_accept(l, "bytes")) {
      read_bytes(r);
    } else if (ir_lex_accept(l, "counts")) {
      read_counts(r);
    } else if (ir_lex_at(l, "pack") && !packed) {
      ir_lex_next(l);
      p->npack = read_insts(r, &p->pack);
      packed = true;
    } else if (ir_lex_at(l, "run") && !ran) {
      ir_lex_next(l);
      p->nrun = read_insts(r, &p->run);
      ran = true;
    } else if (ir_lex_at(l, "init") && !started) {
      ir_lex_next(l);
      p->ninit = read_insts(r, &p->init);
      started = true;
    } else {
      ir_lex_expected(l, "bytes, counts, dim, slot, kernel, pack, run, init or '}'");
    }
  }
  if (l->token != IR_T_END) ir_lex_expected(l, "the end of the text");
}

ir_program *ir_program_parse_with(tn_ctx *ctx, const char *text, const char *file, const ir_data_source *data) {
  ir_lexer l;
  reader r = {.l = &l, .ctx = ctx, .p = IR_NEW(ctx, ir_program), .data = data, .slots = {.ctx = ctx}, .kernels = {.ctx = ctx}};
  for (int k = 0; k < SLOT_KINDS; k++) r.slots_of[k].ctx = ctx;
  r.env = (ir_env){&r, find_var, find_buf};
  ir_lex_start(&l, ctx, text, file, false);
  ir_lex_run(&l, parse_program, &r);
  return r.p;
}

ir_program *ir_program_parse(tn_ctx *ctx, const char *text, const char *file) {
  return ir_program_parse_with(ctx, text, file, NULL);
}

/* ============================================================ writing ==== */

typedef struct writer {
  ir_text *t;
  const ir_program *p;
  ir_map uses;                /* slot name to the number of slots of that name */
  ir_map uses_of[SLOT_KINDS];
  ir_map kernels;             /* likewise */
} writer;

static void count(ir_map *m, const char *name) {
  const char *key = ir_intern(m->ctx, name ? name : "");
  ir_map_set(m, key, (void *)((uintptr_t)ir_map_get(m, key) + 1));
}

static bool once(const ir_map *m, const char *name) {
  return ir_map_get(m, ir_intern(m->ctx, name ? name : "")) == (void *)1;
}

static void put_ref(writer *w, int i) {
  const ir_slot *s = &w->p->slots[i];
  const char *name = s->name ? s->name : "";
  if (once(&w->uses, name)) {
    ir_put_name(w->t, name);
  } else if (once(&w->uses_of[s->kind], name)) {
    ir_put(w->t, "%s:", kind_names[s->kind]);
    ir_put_name(w->t, name);
  } else {
    ir_put(w->t, "@%d", i);
  }
}

static void put_dim(ir_text *t, const ir_program_dim *d) {
  ir_put(t, "  dim ");
  ir_put_name(t, d->var->name);
  ir_put(t, " [%lld, %lld]", (long long)d->var->lo, (long long)d->var->hi);
  for (int i = 0; i < d->nsizes; i++) ir_put(t, i ? ", %lld" : " of %lld", (long long)d->sizes[i]);
  ir_put(t, "\n");
}

static void put_slot(writer *w, const ir_slot *s) {
  ir_text *t = w->t;
  ir_type type = {.dtype = s->dtype, .rank = s->rank, .layout = s->layout};
  for (int i = 0; i < s->rank; i++) type.shape[i] = s->sizes ? s->sizes[i] : ix_index(t->ctx, s->dims[i]);
  ir_put(t, "  slot ");
  ir_put_name(t, s->name ? s->name : "");
  ir_put(t, ": ");
  ir_put_type(t, &type, NULL);
  ir_put(t, " %s", kind_names[s->kind]);
  if (is_numbered(s->kind)) ir_put(t, " %d", s->index);
  if (!is_numbered(s->kind) || s->offset) ir_put(t, " @%lld", (long long)s->offset);
  if (s->inout) ir_put(t, " inout");
  if (s->step) ir_put(t, " step %lld", (long long)s->step);
  ir_put(t, " bytes %lld", (long long)s->bytes);
  if (s->file) {
    ir_put(t, " file ");
    ir_put_string(t, s->file);
  }
  ir_put(t, "\n");
}

/* Whether read_steps on the lines gives the same text. */
static bool is_block(const char *s) {
  while (*s) {
    const char *end = strchr(s, '\n');
    if (!end || end == s || *s == ' ' || *s == '\t' || end[-1] == ' ' || end[-1] == '\t') return false;
    if (memchr(s, '\r', (size_t)(end - s)) || (end - s == 1 && *s == '}')) return false;
    s = end + 1;
  }
  return true;
}

static void put_schedule(ir_text *t, const char *s) {
  ir_put(t, "  schedule ");
  if (!is_block(s)) {
    ir_put_string(t, s);
    ir_put(t, "\n");
    return;
  }
  ir_put(t, "{\n");
  while (*s) {
    size_t n = strcspn(s, "\n") + 1;
    ir_put(t, "    ");
    ir_put_bytes(t, s, n);
    s += n;
  }
  ir_put(t, "  }\n");
}

static void put_insts(writer *w, int n, const ir_inst *insts, int depth);

static void put_block(writer *w, int n, const ir_inst *insts, int depth) {
  ir_put(w->t, "{\n");
  put_insts(w, n, insts, depth + 1);
  ir_put_indent(w->t, depth);
  ir_put(w->t, "}");
}

static void put_inst(writer *w, const ir_inst *c, int depth) {
  ir_text *t = w->t;
  ir_put_indent(t, depth);
  switch (c->kind) {
  case IR_CALL: {
    const char *name = w->p->kernels[c->kernel].kernel->name;
    ir_put(t, "call ");
    if (once(&w->kernels, name)) ir_put_name(t, name);
    else ir_put(t, "@%d", c->kernel);
    ir_put(t, "(");
    for (int i = 0; i < c->nargs; i++) {
      if (i) ir_put(t, ", ");
      put_ref(w, c->args[i]);
    }
    ir_put(t, ")");
    break;
  }
  case IR_COPY_SLOT:
    ir_put(t, "copy ");
    put_ref(w, c->args[1]);
    ir_put(t, " -> ");
    put_ref(w, c->args[0]);
    break;
  case IR_INST_LET:
    ir_put(t, "let ");
    ir_put_name(t, c->var->name);
    if (c->var->dtype == TN_INDEX && (c->var->lo != c->value->lo || c->var->hi != c->value->hi))
      ir_put(t, ": index[%lld, %lld]", (long long)c->var->lo, (long long)c->var->hi);
    ir_put(t, " = ");
    ir_put_expr(t, c->value, NULL, TN_NONE);
    break;
  case IR_INST_FOR:
    ir_put(t, "for ");
    ir_put_name(t, c->var->name);
    ir_put(t, " < ");
    ir_put_expr(t, c->value, NULL, TN_INDEX);
    ir_put(t, " ");
    put_block(w, c->nbody, c->body, depth);
    break;
  case IR_INST_IF:
  case IR_INST_WHILE:
    ir_put(t, c->kind == IR_INST_IF ? "if " : "while ");
    ir_put_expr(t, c->value, NULL, TN_BOOL);
    ir_put(t, " ");
    put_block(w, c->nbody, c->body, depth);
    if (c->nother) {
      ir_put(t, " else ");
      put_block(w, c->nother, c->other, depth);
    }
    break;
  }
  if (c->name) {
    ir_put(t, " ");
    ir_put_string(t, c->name);
  }
  if (c->kind == IR_CALL && c->device) {
    ir_put(t, " on ");
    ir_put_string(t, c->device);
  }
  ir_put(t, "\n");
}

static void put_insts(writer *w, int n, const ir_inst *insts, int depth) {
  for (int i = 0; i < n; i++) put_inst(w, &insts[i], depth);
}

const char *ir_program_print(tn_ctx *ctx, const ir_program *p) {
  ir_text t = {.ctx = ctx};
  writer w = {.t = &t, .p = p, .uses = {.ctx = ctx}, .kernels = {.ctx = ctx}};
  for (int k = 0; k < SLOT_KINDS; k++) w.uses_of[k].ctx = ctx;
  for (int i = 0; i < p->nslots; i++) {
    count(&w.uses, p->slots[i].name);
    count(&w.uses_of[p->slots[i].kind], p->slots[i].name);
  }
  for (int i = 0; i < p->nkernels; i++) count(&w.kernels, p->kernels[i].kernel->name);
  ir_put(&t, "program ");
  ir_put_name(&t, p->name ? p->name : "program");
  ir_put(&t, " {\n  bytes weights %lld arena %lld state %lld pack_arena %lld live_peak %lld\n", (long long)p->weights_bytes,
         (long long)p->arena_bytes, (long long)p->state_bytes, (long long)p->pack_arena_bytes, (long long)p->live_peak_bytes);
  ir_put(&t, "  counts inputs %d outputs %d raw %d\n", p->ninputs, p->noutputs, p->nraw);
  for (int i = 0; i < p->ndims; i++) put_dim(&t, &p->dims[i]);
  for (int i = 0; i < p->nslots; i++) put_slot(&w, &p->slots[i]);
  for (int i = 0; i < p->nkernels; i++) {
    const ir_program_kernel *k = &p->kernels[i];
    ir_put(&t, "\n");
    ir_put_kernel(&t, k->kernel, 1);
    if (k->schedule && *k->schedule) put_schedule(&t, k->schedule);
    else if (k->lowered && k->lowered != k->kernel) {
      ir_put(&t, "  lowered\n");
      ir_put_kernel(&t, k->lowered, 1);
    }
  }
  ir_put(&t, "\n  pack ");
  put_block(&w, p->npack, p->pack, 1);
  ir_put(&t, "\n\n  run ");
  put_block(&w, p->nrun, p->run, 1);
  if (p->ninit) {
    ir_put(&t, "\n\n  init ");
    put_block(&w, p->ninit, p->init, 1);
  }
  ir_put(&t, "\n}\n");
  return ir_text_str(&t);
}
