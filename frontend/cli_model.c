/* cli_model.c — a model on its way: file, graph, program, code, run. */
#include "autotune/lookup.h"
#include "autotune/tpu.h"
#include "frontend/cli.h"
#include "frontend/npy.h"
#include "ir/text.h"
#include "runtime/program_interp.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- reading ---- */

/* The first word of a text, after blanks and # comments; "" for bytes that are no text. */
static const char *first_word(tn_ctx *ctx, const fe_map *m) {
  const char *p = m->data, *end = p + m->size;
  while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t' || *p == '#')) {
    if (*p == '#')
      while (p < end && *p != '\n') p++;
    else p++;
  }
  size_t n = 0;
  while (n < 16 && p + n < end && p[n] >= 'a' && p[n] <= 'z') n++;
  return n && p + n < end && (p[n] == ' ' || p[n] == '\n') ? ir_strndup(ctx, p, n) : "";
}

/* Declared types, found by name: initializers may stand among the inputs of a file. */
static const fe_onnx_type *type_of(const fe_onnx_value *v, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (strcmp(v[i].name, name) == 0) return &v[i].type;
  return NULL;
}

/* The constants of a text: of the model it was printed from (--data), which is lowered in the same way,
 * so that what passes computed is there too. */
static const void *find_data(void *user, const char *name, int64_t bytes, uint64_t hash) {
  const cli_model *d = user;
  for (int i = 0; i < d->graph->nparams; i++) {
    const ir_value *v = d->graph->params[i];
    const void *data = ir_value_source(v);
    if (data && v->data_bytes == bytes && strcmp(v->name, name) == 0 && (!hash || ir_data_hash(data, bytes) == hash)) return data;
  }
  for (int i = 0; i < d->program->nslots; i++) {
    const ir_slot *s = &d->program->slots[i];
    if (s->kind == IR_SLOT_RAW && s->bytes == bytes && strcmp(s->name, name) == 0) return s->data;
  }
  return NULL;
}

static void need_data(cli *c, const cli_model *m) {
  const char *missing = NULL;
  if (m->program) {
    for (int i = 0; i < m->program->nslots; i++)
      if (m->program->slots[i].kind == IR_SLOT_RAW && !m->program->slots[i].data && m->program->slots[i].bytes) missing = m->program->slots[i].name;
  } else
    for (int i = 0; i < m->graph->nparams; i++)
      if (m->graph->params[i]->kind == IR_VALUE_CONST && !m->graph->params[i]->data) missing = m->graph->params[i]->name;
  if (missing) ir_fail(c->ctx, TN_EUSAGE, "%s: the text does not hold the data of '%s': --data MODEL names the model it was printed from", m->path, missing);
}

static void note_dims(tn_ctx *ctx, cli_model *m, const ir_value *v) {
  for (int a = 0; a < v->rank; a++) {
    if (v->dims[a]->op != IX_VAR) continue;
    const char *name = v->dims[a]->u.var->name;
    bool known = false;
    for (int k = 0; k < m->ndims; k++) known |= strcmp(m->dims[k], name) == 0;
    if (!known) IR_PUSH(ctx, m->dims, m->ndims, name);
  }
}

cli_model *cli_load(cli *c, const char *path) {
  tn_ctx *ctx = c->ctx;
  cli_model *m = IR_NEW(ctx, cli_model);
  m->path = path;
  m->target = cg_target_find(ctx, c->cpu, c->triple);
  m->copies = 1;
  double start = rt_now();
  bool kernel = cli_is_kernel(path);
  const fe_map *map = kernel ? NULL : fe_map_file(ctx, path);
  const char *word = kernel ? "" : first_word(ctx, map);
  const char *text = *word ? ir_strndup(ctx, map->data, map->size) : NULL;
  m->kernel = kernel;
  if (kernel) m->graph = cli_kernel_graph(c, path, &m->copies);
  else if (strcmp(word, "graph") == 0 || strcmp(word, "program") == 0) {
    ir_data_source source = {NULL, find_data};
    if (c->data) {
      const char *data = c->data;
      c->data = NULL;
      cli_model *d = source.user = cli_load(c, data);
      if (!d->graph) ir_fail(ctx, TN_EUSAGE, "--data: '%s' is no model", data);
      cli_lower(c, d);
      c->data = data;
    }
    const ir_data_source *from = c->data ? &source : NULL;
    if (*word == 'g') {
      m->graph = ir_graph_parse_with(ctx, text, path, from);
      ir_graph_sort(m->graph);
    } else {
      m->program = ir_program_parse_with(ctx, text, path, from);
      ir_where(ctx, path);
      lw_apply_schedules(ctx, m->program);
      const char *wrong = ir_program_verify(ctx, m->program); /* slots within their memory, indices, scopes */
      if (wrong) ir_fail(ctx, TN_EINPUT, "%s", wrong);
      ir_where(ctx, NULL);
    }
    need_data(c, m);
  } else {
    m->onnx = fe_onnx_load(ctx, path);
    m->graph = fe_import_model(ctx, m->onnx, NULL);
  }
  m->import_s = rt_now() - start;
  if (m->graph) {
    m->nin = m->graph->ninputs;
    m->nout = ir_graph_results(m->graph);
    m->in_name = IR_NEW_ARRAY(ctx, const char *, m->nin + 1);
    m->in_type = IR_NEW_ARRAY(ctx, const fe_onnx_type *, m->nin + 1);
    m->out_name = IR_NEW_ARRAY(ctx, const char *, m->nout + 1);
    m->out_type = IR_NEW_ARRAY(ctx, const fe_onnx_type *, m->nout + 1);
    for (int i = 0; i < m->nin; i++) {
      note_dims(ctx, m, m->graph->inputs[i]);
      m->in_name[i] = m->graph->inputs[i]->name;
      if (m->onnx) m->in_type[i] = type_of(m->onnx->graph->in, m->onnx->graph->n_in, m->in_name[i]);
    }
    for (int i = 0; i < m->nout; i++) {
      m->out_name[i] = m->onnx ? m->onnx->graph->out[i].name : m->graph->outputs[i]->name;
      if (m->onnx) m->out_type[i] = &m->onnx->graph->out[i].type;
    }
  } else {
    m->nin = m->program->ninputs;
    m->nout = m->program->noutputs;
    m->in_name = IR_NEW_ARRAY(ctx, const char *, m->nin + 1);
    m->in_type = IR_NEW_ARRAY(ctx, const fe_onnx_type *, m->nin + 1);
    m->out_name = IR_NEW_ARRAY(ctx, const char *, m->nout + 1);
    m->out_type = IR_NEW_ARRAY(ctx, const fe_onnx_type *, m->nout + 1);
    for (int i = 0; i < m->nin; i++) m->in_name[i] = cli_in_slot(m, i)->name;
    for (int i = 0; i < m->nout; i++) m->out_name[i] = cli_out_slot(m, i)->name;
  }
  m->in = IR_NEW_ARRAY(ctx, fe_array, m->nin + 1);
  return m;
}

static int find_input(const cli_model *m, const char *name) {
  for (int i = 0; i < m->nin; i++)
    if (strcmp(m->in_name[i], name) == 0) return i;
  return -1;
}

static const char *list_names(cli *c, int n, const char *const *names) {
  ir_text t = {.ctx = c->ctx};
  for (int i = 0; i < n && i < 12; i++) ir_put(&t, "%s%s", i ? ", " : "", names[i]);
  if (n > 12) ir_put(&t, ", ...");
  return n ? t.s : "none";
}

/* An input with several sizes is looked at when all is compiled (cli_fill). */
static bool any_size(cli *c, const ir_value *v) {
  for (int a = 0; a < v->rank; a++)
    for (int i = 0; i < c->dims.n; i++) {
      const char *name, *size;
      cli_pair(c, "--dim", c->dims.items[i], &name, &size);
      if (v->dims[a]->op == IX_VAR && strcmp(v->dims[a]->u.var->name, name) == 0 && size[strspn(size, "0123456789")]) return true;
    }
  return false;
}

void cli_feed(cli *c, cli_model *m, const cli_list *inputs) {
  for (int i = 0; i < inputs->n; i++) {
    const char *name, *path;
    cli_pair(c, "--input", inputs->items[i], &name, &path);
    int k = find_input(m, name);
    if (k < 0) ir_fail(c->ctx, TN_EUSAGE, "--input: the model has no input '%s'; its inputs: %s", name, list_names(c, m->nin, m->in_name));
    m->in[k] = fe_array_load(c->ctx, path, m->in_type[k]);
    if (m->graph && !any_size(c, m->graph->inputs[k])) fe_bind_input(c->ctx, m->graph, k, &m->in[k]);
  }
}

void cli_fetch(cli *c, cli_model *m, const cli_list *names) {
  if (names->n && !m->graph) ir_fail(c->ctx, TN_EUSAGE, "--fetch needs a model or a graph, not a program");
  for (int i = 0; i < names->n; i++) {
    ir_value *v = NULL;
    for (int k = 0; k < m->graph->nvalues && !v; k++)
      if (strcmp(m->graph->values[k]->name, names->items[i]) == 0) v = m->graph->values[k];
    for (int k = 0; k < m->graph->nnodes && !v; k++) /* by the name of a node: its first output */
      if (strcmp(m->graph->nodes[k]->name, names->items[i]) == 0 && m->graph->nodes[k]->nout) v = m->graph->nodes[k]->out[0];
    if (!v) ir_fail(c->ctx, TN_EUSAGE, "--fetch: the model has no value and no node '%s'", names->items[i]);
    ir_graph_output(m->graph, v);
    m->out_name = ir_grow(c->ctx, m->out_name, (size_t)m->nout, (size_t)m->nout + 2, sizeof *m->out_name);
    m->out_type = ir_grow(c->ctx, m->out_type, (size_t)m->nout, (size_t)m->nout + 2, sizeof *m->out_type);
    m->out_name[m->nout++] = names->items[i];
  }
}

/* ---- lowering ---- */

static int64_t size_at(cli *c, const char **p) {
  char *end;
  long long v = strtoll(*p, &end, 10);
  if (end == *p || v < 0 || v > INT32_MAX) ir_fail(c->ctx, TN_EUSAGE, "--dim: '%s' is not a number of 0 or more", *p);
  *p = end;
  return v;
}

/* "8", "1,8,32", "1..32", "1..32:1,8". */
static lw_dim read_dim(cli *c, const char *name, const char *text) {
  tn_ctx *ctx = c->ctx;
  lw_dim d = {.name = name};
  const char *p = text;
  d.lo = d.hi = size_at(c, &p);
  if (strncmp(p, "..", 2) == 0) {
    p += 2;
    d.range = true;
    d.hi = size_at(c, &p);
    if (d.hi < d.lo) ir_fail(ctx, TN_EUSAGE, "--dim: '%s' ends before it begins", text);
  }
  if ((d.range || *p) && d.lo == 0) ir_fail(ctx, TN_EUSAGE, "--dim: '%s': several sizes begin with 1", text);
  int64_t *sizes = NULL, s = d.lo;
  if (d.range && *p == ':') p++, s = size_at(c, &p);
  else if (d.range && !*p) return lw_dim_range(ctx, name, d.lo, d.hi);
  for (;; p++, s = size_at(c, &p)) {
    if (d.n && s <= sizes[d.n - 1]) ir_fail(ctx, TN_EUSAGE, "--dim: the sizes of '%s' must ascend", text);
    IR_PUSH(ctx, sizes, d.n, s);
    if (*p != ',') break;
  }
  if (*p) ir_fail(ctx, TN_EUSAGE, "--dim: '%s' is none of 8; 1,8,32; 1..32; 1..32:1,8", text);
  if (d.range && (sizes[0] != d.lo || sizes[d.n - 1] > d.hi)) ir_fail(ctx, TN_EUSAGE, "--dim: the sizes of '%s' must begin with %lld and stay within the range", text, (long long)d.lo);
  if (!d.range) d.hi = sizes[d.n - 1];
  d.sizes = sizes;
  return d;
}

/* The sizes that --dim gives; *several: some of them more than one. */
static lw_dim *read_dims(cli *c, cli_model *m, bool *several) {
  tn_ctx *ctx = c->ctx;
  lw_dim *d = IR_NEW_ARRAY(ctx, lw_dim, c->dims.n + 1);
  *several = false;
  for (int i = 0; i < c->dims.n; i++) {
    const char *name, *size;
    cli_pair(c, "--dim", c->dims.items[i], &name, &size);
    bool used = false, again = false;
    for (int k = 0; k < m->ndims; k++) used |= strcmp(m->dims[k], name) == 0;
    if (!used && m->onnx) ir_fail(ctx, TN_EUSAGE, "--dim: the model has no dimension '%s'; it has: %s", name, list_names(c, m->ndims, m->dims));
    for (int k = 0; k < i; k++) again |= strcmp(d[k].name, name) == 0;
    if (again) ir_fail(ctx, TN_EUSAGE, "--dim: '%s' is given twice; several sizes are written %s=1,8,32", name, name);
    d[i] = read_dim(c, name, size);
    *several |= !lw_dim_fixed(&d[i]);
  }
  return d;
}

/* The first size of each, or the last. */
static void bind_dims(cli *c, ir_graph *g, const lw_dim *d, bool last) {
  const char **names = IR_NEW_ARRAY(c->ctx, const char *, c->dims.n + 1);
  int64_t *sizes = IR_NEW_ARRAY(c->ctx, int64_t, c->dims.n + 1);
  for (int i = 0; i < c->dims.n; i++) names[i] = d[i].name, sizes[i] = d[i].sizes[last ? d[i].n - 1 : 0];
  lw_bind_dims(c->ctx, g, c->dims.n, names, sizes);
}

/* Inputs that decide shapes are compiled in with the value that was given. */
static void freeze_shapes(cli *c, cli_model *m) {
  bool *shapes = fe_shape_inputs(c->ctx, m->graph);
  ir_text missing = {.ctx = c->ctx};
  for (int i = 0; i < m->nin; i++) {
    if (!shapes[i]) continue;
    if (m->in[i].data) fe_freeze_input(c->ctx, m->graph, i, m->in[i].data);
    else ir_put(&missing, "%s%s", missing.n ? ", " : "", m->in_name[i]);
  }
  if (missing.n) ir_fail(c->ctx, TN_EUSAGE, "%s: inputs that decide shapes must be given (--input NAME=FILE): %s", m->path, missing.s);
}

typedef struct watch {
  cli_model *m;
  const char *dump; /* TN_DUMP */
  const char *last; /* the text that was dumped last */
} watch;

static bool wanted(const char *list, const char *pass) {
  if (!list) return false;
  if (strncmp(list, "after:", 6) == 0) list += 6;
  size_t n = strlen(pass);
  for (const char *p = list; *p; p += *p == ',') {
    size_t k = strcspn(p, ",");
    if ((k == n && memcmp(p, pass, n) == 0) || (k == 3 && memcmp(p, "all", 3) == 0)) return true;
    p += k;
  }
  return false;
}

static void after_pass(void *user, tn_ctx *ctx, const char *pass, const ir_graph *g, double seconds) {
  watch *w = user;
  cli_pass p = {.name = pass, .seconds = seconds, .nodes = g->nnodes};
  bool dump = wanted(w->dump, pass);
  if (w->m->keep_texts || w->dump) p.text = ir_graph_print(ctx, g);
  if (dump) {
    if (w->last && strcmp(w->last, p.text) == 0) fprintf(stderr, "# after %s: unchanged\n", pass);
    else fprintf(stderr, "# after %s\n%s", pass, p.text);
    w->last = p.text;
  }
  IR_PUSH(ctx, w->m->passes, w->m->npasses, p);
}

static const at_key *new_key(tn_ctx *ctx, at_key key) {
  at_key *k = IR_NEW(ctx, at_key);
  *k = key;
  return k;
}

void cli_bind(cli *c, cli_model *m) {
  bool several;
  const lw_dim *d = read_dims(c, m, &several);
  if (several) ir_fail(c->ctx, TN_EUSAGE, "--dim: several sizes are for programs of CPUs and GPUs; one is needed here");
  ir_where(c->ctx, m->path);
  bind_dims(c, m->graph, d, false);
  ir_where(c->ctx, NULL);
  freeze_shapes(c, m);
}

const lw_dim *cli_bind_sizes(cli *c, cli_model *m) {
  bool several;
  const lw_dim *d = read_dims(c, m, &several);
  if (several) freeze_shapes(c, m);
  else cli_bind(c, m);
  return several ? d : NULL;
}

/* ---- several sizes ---- */

/* A size that the program can be run at. */
static void choose_size(cli *c, cli_model *m, const char *name, int64_t v) {
  const ir_program *p = m->program;
  for (int i = 0; i < p->ndims; i++) {
    const ir_program_dim *d = &p->dims[i];
    bool listed = !d->nsizes;
    if (strcmp(d->var->name, name)) continue;
    for (int k = 0; k < d->nsizes; k++) listed |= d->sizes[k] == v;
    if (v < d->var->lo || v > d->var->hi || !listed) ir_fail(c->ctx, TN_EUSAGE, "--at: %s=%lld is none of the sizes that --dim gives", name, (long long)v);
    m->at[i] = v;
    return;
  }
  ir_fail(c->ctx, TN_EUSAGE, "--at: '%s' is no dimension of several sizes", name);
}

static ir_slot *slot(const cli_model *m, ir_slot_kind kind, int k);

static ir_slot *faces(cli *c, cli_model *m, ir_slot_kind kind, int n) {
  ir_slot *faces = IR_NEW_ARRAY(c->ctx, ir_slot, n + 1);
  for (int i = 0; i < n; i++) {
    ir_slot *f = &faces[i];
    *f = *slot(m, kind, i);
    f->bytes = (int64_t)ir_dtype_bytes(f->dtype);
    for (int a = 0; a < f->rank; a++) {
      ix e = f->sizes[a];
      for (int d = 0; d < m->program->ndims; d++) e = ix_subst1(c->ctx, e, m->program->dims[d].var, ix_index(c->ctx, m->at[d]));
      if (ir_extent_slot(m->program, e) < 0) f->dims[a] = ix_need_const(c->ctx, e, "the sizes of an input");
      f->bytes *= f->dims[a];
    }
  }
  return faces;
}

/* Where a program of several sizes is run: at the largest, or where --at says. */
void cli_settle_sizes(cli *c, cli_model *m) {
  const ir_program *p = m->program;
  if (!p->ndims && c->at.n) ir_fail(c->ctx, TN_EUSAGE, "--at is for several sizes, --dim gives one");
  if (!p->ndims) return;
  m->at = IR_NEW_ARRAY(c->ctx, int64_t, p->ndims);
  for (int i = 0; i < p->ndims; i++) m->at[i] = p->dims[i].var->hi;
  for (int i = 0; i < c->at.n; i++) {
    const char *name, *size;
    cli_pair(c, "--at", c->at.items[i], &name, &size);
    choose_size(c, m, name, cli_integer(c, "--at", size));
  }
  m->in_face = faces(c, m, IR_SLOT_INPUT, m->nin);
  m->out_face = faces(c, m, IR_SLOT_OUTPUT, m->nout);
}

/* Passes may have renamed the outputs. */
void cli_name_outputs(cli *c, cli_model *m) {
  for (int i = 0; i < m->nout; i++) slot(m, IR_SLOT_OUTPUT, i)->name = ir_intern(c->ctx, m->out_name[i]);
}

/* Tiles that tenon tune has found for the program, if any. */
static void use_tiles(cli *c, const tpu_machine *machine, const rt_tpu_options *o, rt_tpu_build *b) {
  at_tpu_task t = {b->program, machine, lw_precision_name(o->precision), b->weights, o->cores};
  at_store *store = o->tile || c->unscheduled ? NULL : at_store_open(c->ctx, c->db, AT_STORE_READONLY);
  tpu_tunables *tiles = store ? at_tpu_lookup(c->ctx, &t, store) : NULL;
  at_store_close(store);
  if (!tiles) return;
  tpu_program *p = rt_tpu_program(c->ctx, b->program, machine, &(tpu_options){.tiles = tiles, .weights = b->weights, .cores = o->cores});
  if (rt_tpu_cycles(c->ctx, machine, p) < rt_tpu_cycles(c->ctx, machine, b->tpu)) b->tpu = p; /* winners one by one need not add up */
}

rt_tpu_build cli_lower_tpu(cli *c, cli_model *m, const tpu_machine *machine, const rt_tpu_options *o) {
  rt_tpu_build b = {.program = m->program};
  if (m->graph) {
    cli_bind(c, m);
    ir_where(c->ctx, m->path);
    b = rt_tpu_compile(c->ctx, m->graph, machine, o);
  } else rt_tpu_compile_program(c->ctx, &b, machine, o);
  use_tiles(c, machine, o, &b);
  ir_where(c->ctx, NULL);
  m->program = b.program;
  m->lower_s = b.lower_s, m->compile_s = b.pack_s + b.compile_s;
  cli_name_outputs(c, m);
  return b;
}

void cli_lower(cli *c, cli_model *m) {
  if (c->engine == CLI_CUDA) {
    m->cuda = fe_cuda_open(c->ctx, c->arch); /* first: a missing GPU is known at once */
    cli_lower_cuda(c, m, m->cuda->target);
    return;
  }
  if (m->program) {
    cli_settle_sizes(c, m);
    return;
  }
  watch w = {.m = m, .dump = getenv("TN_DUMP")};
  lw_options o = {.target = m->target, .unscheduled = c->unscheduled, .after_pass = after_pass, .after_user = &w};
  o.accuracy = cli_accuracy(c);
  o.free_io = m->kernel; /* as libraries are timed: operands in the layout that suits */
  cli_use_schedules(c, m, &o);
  const lw_dim *d = cli_bind_sizes(c, m);
  if (c->layout) o.layout = strcmp(c->layout, "NCHW") == 0 ? LW_LAYOUT_NCHW : strcmp(c->layout, "NHWC") == 0 ? LW_LAYOUT_NHWC : LW_LAYOUT_NCHWC;
  if (!m->kernel && m->lookup) {
    ir_graph *g = m->graph;
    if (d) bind_dims(c, g = ir_graph_clone(c->ctx, g, NULL), d, true); /* one layout for all sizes, by the largest */
    m->layout_key = new_key(c->ctx, at_layout_key(c->ctx, g, m->target, cli_thread_count(c)));
    m->whole_key = new_key(c->ctx, at_whole_key(c->ctx, g, m->target, cli_thread_count(c)));
    m->cut_key = new_key(c->ctx, at_cut_key(c->ctx, g, m->target, cli_thread_count(c)));
  }
  m->cuts = c->cuts;
  if (!c->layout && m->layout_key) {
    if (!c->trust && at_lookup_untuned(m->lookup, m->whole_key)) o.schedule = NULL;
    else {
      o.layout = at_lookup_layout(m->lookup, m->layout_key);
      if (!m->cuts) m->cuts = at_lookup_cuts(c->ctx, m->lookup, m->cut_key);
    }
  }
  if (!m->kernel && !c->unscheduled) o.cut = cli_wants_cut, o.cut_user = m;
  m->layout = o.layout;
  double start = rt_now();
  if (d) ir_where(c->ctx, m->path);
  m->program = d ? lw_compile_sizes(c->ctx, m->graph, c->dims.n, d, &o) : lw_compile(c->ctx, m->graph, &o);
  if (d) ir_where(c->ctx, NULL);
  m->lower_s = rt_now() - start;
  cli_check_frozen(c, m);
  cli_name_outputs(c, m);
  cli_settle_sizes(c, m);
  if (wanted(w.dump, "program")) fprintf(stderr, "# program\n%s", ir_program_print(c->ctx, m->program));
}

/* ---- memory ---- */

static ir_slot *slot(const cli_model *m, ir_slot_kind kind, int k) {
  for (int i = 0; i < m->program->nslots; i++)
    if (m->program->slots[i].kind == kind && m->program->slots[i].index == k) return &m->program->slots[i];
  return NULL;
}
const ir_slot *cli_in_slot(const cli_model *m, int k) { return m->in_face ? &m->in_face[k] : slot(m, IR_SLOT_INPUT, k); }
const ir_slot *cli_out_slot(const cli_model *m, int k) { return m->out_face ? &m->out_face[k] : slot(m, IR_SLOT_OUTPUT, k); }

int64_t cli_elements(const ir_slot *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dims[i];
  return n;
}

void cli_need_one_size(cli *c, const cli_model *m) {
  if (m->program->ndims) ir_fail(c->ctx, TN_EUSAGE, "tenon %s shows one size: give --dim NAME=N for each", c->verb->name);
}

void cli_fill(cli *c, cli_model *m) {
  tn_ctx *ctx = c->ctx;
  for (int i = 0; i < m->nin; i++) {
    const ir_slot *s = cli_in_slot(m, i);
    fe_array *a = &m->in[i];
    if (a->data) {
      if (a->dtype != s->dtype || a->rank != s->rank || a->count != cli_elements(s))
        ir_fail(ctx, TN_EINPUT, "input '%s' is %s, given is %s", m->in_name[i], fe_shape_text(ctx, s->dtype, s->rank, s->dims),
                fe_shape_text(ctx, a->dtype, a->rank, a->dims));
      continue;
    }
    *a = (fe_array){.name = m->in_name[i], .dtype = s->dtype, .rank = s->rank, .dims = s->dims, .count = cli_elements(s), .bytes = (size_t)s->bytes};
    void *p = fe_buffer(ctx, s->bytes);
    fe_random(p, a->dtype, a->count, (uint64_t)c->seed, i);
    a->data = p;
  }
  m->out = IR_NEW_ARRAY(ctx, void *, m->nout + 1);
  m->out_dims = IR_NEW_ARRAY(ctx, int64_t *, m->nout + 1);
  for (int i = 0; i < m->nout; i++) {
    const ir_slot *s = cli_out_slot(m, i);
    m->out[i] = fe_buffer(ctx, s->bytes);
    m->out_dims[i] = IR_NEW_ARRAY(ctx, int64_t, IR_MAX_RANK);
    memcpy(m->out_dims[i], s->dims, sizeof s->dims);
  }
}

const char *cli_npy_path(cli *c, const char *dir, const char *name) {
  char *file = ir_format(c->ctx, "%s.npy", name);
  for (char *p = file; *p; p++)
    if (!((*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '.' || *p == '_' || *p == '-')) *p = '_';
  return fe_path_join(c->ctx, dir, file);
}

void cli_make_folder(cli *c, const char *dir) {
  char *path = ir_strdup(c->ctx, dir);
  for (char *p = path + 1; *p; p++) /* like mkdir -p */
    if (*p == '/') {
      *p = 0;
      mkdir(path, 0777);
      *p = '/';
    }
  struct stat s;
  if (mkdir(path, 0777) != 0 && errno != EEXIST) ir_fail(c->ctx, TN_ERESOURCE, "%s: cannot be made: %s", dir, strerror(errno));
  if (stat(path, &s) != 0 || !S_ISDIR(s.st_mode)) ir_fail(c->ctx, TN_ERESOURCE, "%s: is no folder", dir);
}

void cli_save_inputs(cli *c, cli_model *m, const char *dir) {
  cli_make_folder(c, dir);
  for (int i = 0; i < m->nin; i++) fe_npy_save(c->ctx, cli_npy_path(c, dir, m->in_name[i]), &m->in[i]);
}

/* ---- running ---- */

static void free_pool(void *arg) { rt_pool_free(arg); }

int cli_thread_count(const cli *c) { return c->threads ? (int)c->threads : rt_cpu_count(); }

void cli_start(cli *c, cli_model *m) {
  if (c->engine == CLI_INTERP) return;
  double start = rt_now();
  int threads = cli_thread_count(c);
  if (c->engine == CLI_CUDA) {
    ir_where(c->ctx, m->path);
    fe_cuda_load(c->ctx, m->cuda, m->program, c->db, cli_accuracy(c), threads);
    ir_where(c->ctx, NULL);
    m->compile_s = rt_now() - start;
    return;
  }
  rt_options o = {.target = m->target, .jobs = threads};
  m->module = rt_module_build(c->ctx, m->program, &o);
  m->compile_s = rt_now() - start;
  cli_start_threads(c, m);
}

void cli_start_threads(cli *c, cli_model *m) {
  if (c->threads != 1) {
    m->pool = rt_pool_new((int)c->threads);
    if (!m->pool) ir_fail(c->ctx, TN_ERESOURCE, "threads cannot be started");
    ir_defer(c->ctx, free_pool, m->pool);
  }
}

/* As the run has found them. */
static void take_extents(cli_model *m, const int64_t *extents) {
  for (int i = 0; i < m->nout; extents += cli_out_slot(m, i++)->rank) memcpy(m->out_dims[i], extents, (size_t)cli_out_slot(m, i)->rank * sizeof *extents);
}

void cli_run_once(cli *c, cli_model *m) {
  int64_t *extents = IR_NEW_ARRAY(c->ctx, int64_t, (int64_t)m->nout * IR_MAX_RANK + 1);
  const void **in = IR_NEW_ARRAY(c->ctx, const void *, m->nin + 1);
  for (int i = 0; i < m->nin; i++) in[i] = m->in[i].data;
  void *state = m->program->state_bytes ? fe_buffer(c->ctx, m->program->state_bytes) : NULL;
  if (c->engine == CLI_INTERP) {
    rt_interp_options o = {.unscheduled = c->unscheduled, .dims = m->at, .out_dims = extents};
    rt_program_interp(c->ctx, m->program, in, m->out, NULL, state, &o);
    take_extents(m, extents);
    return;
  }
  if (m->cuda) {
    rt_cuda_run(c->ctx, m->cuda->module, in, m->out, m->at, extents, state);
    take_extents(m, extents);
    return;
  }
  int code = rt_run_sized(m->module, in, m->out, m->at, extents, state, rt_pool_threads(m->pool));
  if (code == RT_NO_MEMORY) ir_fail(c->ctx, TN_ERESOURCE, "%s: out of memory for the arena", m->path);
  if (code) ir_fail(c->ctx, TN_EINTERNAL, "%s: the run failed: %s", m->path, cg_run_error(code));
  take_extents(m, extents);
}

void cli_stop(cli *c, cli_model *m) {
  if (m->pool) {
    ir_undefer(c->ctx, free_pool, m->pool);
    rt_pool_free(m->pool);
    m->pool = NULL;
  }
  if (m->cuda) fe_cuda_close(m->cuda);
  m->cuda = NULL;
  if (m->module) rt_module_free(c->ctx, m->module);
  m->module = NULL;
}

const char *cli_bytes(cli *c, double b) {
  if (b < 1e3) return ir_format(c->ctx, "%.0f B", b);
  if (b < 1e6) return ir_format(c->ctx, "%.1f kB", b / 1e3);
  if (b < 1e9) return ir_format(c->ctx, "%.1f MB", b / 1e6);
  return ir_format(c->ctx, "%.2f GB", b / 1e9);
}

const char *cli_time(cli *c, double s) {
  if (s < 1e-6) return ir_format(c->ctx, "%.0f ns", s * 1e9);
  if (s < 1e-3) return ir_format(c->ctx, "%.2f us", s * 1e6);
  if (s < 1) return ir_format(c->ctx, "%.3f ms", s * 1e3);
  return ir_format(c->ctx, "%.2f s", s);
}
