/* header.c — the C header of a generated object: C99 and C++, complete in itself. See object.h. */
#include "codegen/object.h"
#include <ctype.h>
#include <string.h>

typedef struct gen {
  tn_ctx *ctx;
  const ir_program *p;
  const cg_build *build;
  const cg_object_options *o;
  const char *lower, *upper; /* the prefix, and in capitals */
  int nstates;
  const ir_slot **states;
  ir_text out;
} gen;

/* A C string literal; bytes that are not plain ASCII as octal escapes, '?' too (trigraphs). */
static const char *literal(tn_ctx *ctx, const char *s) {
  ir_text t = {.ctx = ctx};
  ir_put(&t, "\"");
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') ir_put(&t, "\\%c", c);
    else if (c < 32 || c > 126 || c == '?') ir_put(&t, "\\%03o", c);
    else ir_put(&t, "%c", c);
  }
  ir_put(&t, "\"");
  return ir_text_str(&t);
}

/* Fit for a comment: what could end it, or a line, becomes '_'. */
static const char *comment(tn_ctx *ctx, const char *s) {
  char *c = ir_strdup(ctx, s);
  for (char *q = c; *q; q++)
    if (!isalnum((unsigned char)*q) && !strchr("._-:, ", *q)) *q = '_';
  if (strlen(c) > 60) memcpy(c + 57, "...", 4);
  return c;
}

static const char *c_type(tn_dtype t) {
  switch (t) {
  case TN_BOOL: case TN_U8: case TN_F8E4M3FN: case TN_F8E5M2: case TN_F8E4M3FNUZ: case TN_F8E5M2FNUZ: case TN_F4E2M1: return "uint8_t";
  case TN_I8: return "int8_t";
  case TN_I16: return "int16_t";
  case TN_U16: case TN_F16: case TN_BF16: return "uint16_t";
  case TN_I32: return "int32_t";
  case TN_U32: return "uint32_t";
  case TN_I64: return "int64_t";
  case TN_U64: return "uint64_t";
  case TN_F64: return "double";
  default: return "float";
  }
}

/* The states: slots that are no views of others. */
static int states(const gen *g, const ir_slot **out) {
  int n = 0;
  for (int i = 0; i < g->p->nslots; i++) {
    const ir_slot *s = &g->p->slots[i];
    bool whole = s->kind == IR_SLOT_STATE;
    for (int k = 0; k < i && whole; k++) { /* made first */
      const ir_slot *t = &g->p->slots[k];
      whole = t->kind != IR_SLOT_STATE || s->offset < t->offset || s->offset >= t->offset + (t->bytes ? t->bytes : 1);
    }
    if (!whole) continue;
    if (out) out[n] = s;
    n++;
  }
  return n;
}

static const ir_slot *slot_of(const gen *g, ir_slot_kind kind, int index) {
  for (int i = 0; i < g->p->nslots; i++)
    if (g->p->slots[i].kind == kind && g->p->slots[i].index == index) return &g->p->slots[i];
  ir_bug(g->ctx, "slot %d of kind %d is missing", index, (int)kind);
}

static const ir_slot *slot_at(const gen *g, ir_slot_kind kind, int i) { return kind == IR_SLOT_STATE ? g->states[i] : slot_of(g, kind, i); }

/* "N, 3, 224": with the names of the program's dims; "" when there are none. */
static const char *sizes_text(const gen *g, const ir_slot *s) {
  ir_text t = {.ctx = g->ctx};
  for (int d = 0; d < s->rank && s->sizes; d++) ir_put(&t, "%s%s", d ? ", " : "", ir_extent_slot(g->p, s->sizes[d]) < 0 ? ix_print(g->ctx, s->sizes[d]) : "found");
  return t.n ? ir_text_str(&t) : "";
}

static const char *dims_text(const gen *g, const ir_slot *s) {
  ir_text t = {.ctx = g->ctx};
  for (int d = 0; d < s->rank; d++) ir_put(&t, "%s%lld", d ? ", " : "", (long long)s->dims[d]);
  return ir_text_str(&t);
}

static void put_slots(gen *g, ir_slot_kind kind, int n, const char *word, const char *what) {
  ir_text *t = &g->out;
  for (int i = 0; i < n; i++) {
    const ir_slot *s = slot_at(g, kind, i);
    const char *u = g->upper, *dims = dims_text(g, s);
    const char *sizes = sizes_text(g, s);
    if (s->sizes) ir_put(t, "/* %s[%d] has the extents [%s]%s; the most that they can be: */\n", what, i, comment(g->ctx, sizes), strstr(sizes, "found") ? " (found: by the run, in out_dims)" : "");
    ir_put(t, "/* %s[%d]: %s, %s[%s]%s%s%s */\n", what, i, comment(g->ctx, s->name), ir_dtype_name(s->dtype), dims,
           s->layout ? ", layout " : "", s->layout ? comment(g->ctx, s->layout->text) : "", s->inout ? ", changed in place" : "");
    ir_put(t, "#define %s_%s_%d_NAME  %s\n", u, word, i, literal(g->ctx, s->name));
    ir_put(t, "#define %s_%s_%d_DTYPE \"%s\"\n", u, word, i, ir_dtype_name(s->dtype));
    ir_put(t, "#define %s_%s_%d_TYPE  %s\n", u, word, i, c_type(s->dtype));
    ir_put(t, "#define %s_%s_%d_RANK  %d\n", u, word, i, s->rank);
    if (s->rank) ir_put(t, "#define %s_%s_%d_DIMS  {%s}\n", u, word, i, dims);
    for (int d = 0; d < s->rank; d++) ir_put(t, "#define %s_%s_%d_DIM_%d %lld\n", u, word, i, d, (long long)s->dims[d]);
    ir_put(t, "#define %s_%s_%d_BYTES %lld\n", u, word, i, (long long)s->bytes);
    if (kind == IR_SLOT_STATE) ir_put(t, "#define %s_%s_%d_OFFSET %lld\n", u, word, i, (long long)s->offset);
  }
  if (n == 0) return;
  ir_put(t, "/* As initialisers of tables with %d entries. */\n", n);
  ir_put(t, "#define %s_%s_NAMES  {", g->upper, word);
  for (int i = 0; i < n; i++) ir_put(t, "%s%s", i ? ", " : "", literal(g->ctx, slot_at(g, kind, i)->name));
  ir_put(t, "}\n");
  if (kind == IR_SLOT_STATE) {
    ir_put(t, "#define %s_%s_OFFSETS {", g->upper, word);
    for (int i = 0; i < n; i++) ir_put(t, "%s%lld", i ? ", " : "", (long long)g->states[i]->offset);
    ir_put(t, "}\n");
  }
  ir_put(t, "#define %s_%s_DTYPES {", g->upper, word);
  for (int i = 0; i < n; i++) ir_put(t, "%s\"%s\"", i ? ", " : "", ir_dtype_name(slot_at(g, kind, i)->dtype));
  ir_put(t, "}\n#define %s_%s_RANKS  {", g->upper, word);
  for (int i = 0; i < n; i++) ir_put(t, "%s%d", i ? ", " : "", slot_at(g, kind, i)->rank);
  ir_put(t, "}\n#define %s_%s_%s  {", g->upper, word, kind == IR_SLOT_STATE ? "SIZES" : "BYTES"); /* STATE_BYTES is the whole */
  for (int i = 0; i < n; i++) ir_put(t, "%s%lld", i ? ", " : "", (long long)slot_at(g, kind, i)->bytes);
  ir_put(t, "}\n");
}

/* The sizes that a run is told. */
static void put_dims(gen *g) {
  ir_text *t = &g->out;
  for (int i = 0; i < g->p->ndims; i++) {
    const ir_program_dim *d = &g->p->dims[i];
    ir_put(t, "/* dims[%d]: %s", i, comment(g->ctx, d->var->name));
    for (int k = 0; k < d->nsizes; k++) ir_put(t, k ? ", %lld" : ", one of %lld", (long long)d->sizes[k]);
    ir_put(t, " */\n#define %s_DIM_%d_NAME %s\n", g->upper, i, literal(g->ctx, d->var->name));
    ir_put(t, "#define %s_DIM_%d_MIN  %lld\n#define %s_DIM_%d_MAX  %lld\n", g->upper, i, (long long)d->var->lo, g->upper, i, (long long)d->var->hi);
  }
}

static void put_sizes(gen *g) {
  ir_text *t = &g->out;
  const char *u = g->upper;
  const ir_program *p = g->p;
  bool embed = g->o->weights == CG_WEIGHTS_EMBED, pointer = g->o->weights == CG_WEIGHTS_POINTER;
  ir_put(t, "/* ---- memory ---- */\n\n");
  ir_put(t, "/* Alignment in bytes of arena, weights and state; for in and out that of their elements\n * is enough. */\n");
  ir_put(t, "#define %s_ALIGN %d\n", u, CG_ALIGN);
  if (g->o->cuda)
    ir_put(t, "/* Bytes of the arena, in the host's memory. Zero it before the first run: it holds what is on the\n"
              " * GPU, until %s_close. */\n#define %s_ARENA_BYTES(workers) ((size_t)%lld)\n", g->lower, u, (long long)g->o->cuda->session_bytes);
  else ir_put(t, "/* Bytes of the arena for so many workers (1 when threads is null). Its contents need not be\n"
            " * set, and mean nothing between calls. */\n");
  if (!g->o->cuda) ir_put(t, "#define %s_ARENA_BYTES(workers) ((size_t)%lld + (size_t)(workers) * (size_t)%lld)\n", u,
         (long long)cg_arena_bytes(p, g->build->infos, 0), (long long)cg_scratch_bytes(p, false, g->build->infos));
  if (p->ndims)
    ir_put(t, "/* The same for these dims, which are enough for any. */\n"
              "#define %s_arena_bytes(dims, workers) ((void)(dims), %s_ARENA_BYTES(workers))\n", g->lower, u);
  ir_put(t, "/* Bytes of the packed weights%s. */\n", embed ? ", which are inside this object: pass null for them" : "");
  ir_put(t, "#define %s_WEIGHTS_BYTES %lld\n", u, (long long)cg_blob_bytes(p));
  ir_put(t, "#define %s_WEIGHTS_EMBEDDED %d\n", u, embed ? 1 : 0);
  if (g->o->weights == CG_WEIGHTS_FILE && cg_blob_bytes(p) > 0) {
    const char *path = g->o->weights_path, *slash = strrchr(path, '/');
    ir_put(t, "/* The file that holds them: map it or read it, at an address aligned to %s_ALIGN. */\n", u);
    ir_put(t, "#define %s_WEIGHTS_FILE %s\n", u, literal(g->ctx, slash ? slash + 1 : path));
  }
  ir_put(t, "/* Bytes of the state, which a run reads and updates%s. 0: pass null. */\n",
         p->state_bytes ? "; the init function fills it" : "");
  ir_put(t, "#define %s_STATE_BYTES %lld\n", u, (long long)p->state_bytes);
  if (pointer) {
    ir_put(t, "/* Bytes that %s_pack needs at `blob`; the first %s_WEIGHTS_BYTES of them are the weights, the\n"
              " * rest is free again afterwards. */\n", g->lower, u);
    ir_put(t, "#define %s_PACK_BYTES %lld\n", u, (long long)cg_pack_bytes(p, g->build->infos));
  }
  ir_put(t, "\n");
}

/* How objects for GPUs reach the driver. */
static void put_cuda(gen *g) {
  ir_put(&g->out, "/* How a run reaches the CUDA driver, which nothing is linked to: getproc gives the address of one of its\n"
                  " * functions by its name in libcuda.so.1, such as \"cuMemAlloc_v2\"; null: not there. With dlopen:\n"
                  " *   static void *getproc(void *lib, const char *name) { return dlsym(lib, name); }\n"
                  " *   %s_cuda cuda = {dlopen(\"libcuda.so.1\", RTLD_NOW), getproc, 0};\n"
                  " * device: its number. The object holds code for %s. */\n"
                  "typedef struct %s_cuda {\n"
                  "  void *ctx;\n"
                  "  void *(*getproc)(void *ctx, const char *symbol);\n"
                  "  int device;\n"
                  "} %s_cuda;\n\n", g->lower, g->o->cuda->archs, g->lower, g->lower);
}

static void put_functions(gen *g) {
  ir_text *t = &g->out;
  const char *l = g->lower, *u = g->upper;
  ir_put(t, "/* ---- functions ---- */\n\n");
  if (g->o->cuda) put_cuda(g);
  else
  ir_put(t, "/* How a run may use threads. parallel_for calls body(arg, task, worker) once for each task in\n"
            " * [0, tasks), in any order, at the same time or not, and returns when all have returned; worker is\n"
            " * in [0, workers), and no two calls that run at the same time have the same. Results do not depend\n"
            " * on the number of workers, to the bit. */\n"
            "typedef struct %s_threads {\n"
            "  void *ctx;\n"
            "  int workers;\n"
            "  void (*parallel_for)(void *ctx, int tasks, void (*body)(void *arg, int task, int worker), void *arg);\n"
            "} %s_threads;\n\n", l, l);
  ir_put(t, "/* Runs the model once. May be called by several threads at a time, each with its own arena%s.\n",
         g->p->state_bytes ? " and state" : "");
  ir_put(t, " *   in, out   tables of %s_NUM_INPUTS and %s_NUM_OUTPUTS pointers; tensors are dense, last\n"
            " *             dimension fastest; inputs are not written, outputs may not overlap anything\n", u, u);
  ir_put(t, " *   dims      values of dynamic dimensions (%s_NUM_DIMS of them); may be null when there are none\n", u);
  ir_put(t, " *   out_dims  null, or room for %s_NUM_OUT_DIMS values: the dimensions of out[0], then out[1], ...\n", u);
  if (g->o->weights == CG_WEIGHTS_EMBED)
    ir_put(t, " *   weights   null (or a blob of the same layout)\n");
  else
    ir_put(t, " *   weights   %s_WEIGHTS_BYTES bytes%s; not written\n", u,
           g->o->weights == CG_WEIGHTS_FILE ? ", the contents of the weights file" : " filled by the pack function");
  ir_put(t, " *   state     %s_STATE_BYTES bytes\n"
            " *   arena     %s_ARENA_BYTES(workers) bytes\n"
            "%s. Returns %s_OK or an error code; outputs are then untouched. */\n", u, u,
         g->o->cuda ? " *   cuda      how the driver is reached\n"
                      " * The first run of an arena loads code and weights, which takes longer. Allocates on the GPU alone"
                    : " *   threads   null: the calling thread alone\n * Never allocates, keeps nothing", u);
  ir_put(t, "int %s_run(const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[],\n"
            "    const void *weights, void *state, void *arena, const %s_%s);\n", l, l, g->o->cuda ? "cuda *cuda" : "threads *threads");
  if (g->o->cuda)
    ir_put(t, "\n/* Gives back what the arena holds on the GPU; the next run starts anew. */\nvoid %s_close(void *arena);\n"
              "/* The driver's number (CUresult) for what failed last with this arena; 0: nothing. */\nint %s_error(const void *arena);\n", l, l);
  if (g->p->state_bytes)
    ir_put(t, "\n/* Fills the state with what it holds before the first run. weights: as for the run. Returns\n"
              " * %s_OK or an error code. */\nint %s_init(void *state, const void *weights);\n", u, l);
  if (g->o->weights == CG_WEIGHTS_POINTER) {
    ir_put(t, "\n/* Fills blob (%s_PACK_BYTES bytes, aligned to %s_ALIGN) from the %s_NUM_RAW original tensors.\n"
              " * Returns %s_OK or an error code. */\n", u, u, u, u);
    ir_put(t, "int %s_pack(const void *const raw[], void *blob);\n", l);
  }
}

const char *cg_header_text(tn_ctx *ctx, const ir_program *p, const cg_build *build, const cg_object_options *o) {
  gen g = {.ctx = ctx, .p = p, .build = build, .o = o, .lower = o->prefix, .out = {.ctx = ctx}};
  char *upper = ir_strdup(ctx, o->prefix);
  for (char *c = upper; *c; c++) *c = (char)toupper((unsigned char)*c);
  g.upper = upper;
  ir_text *t = &g.out;
  const char *u = upper;
  int64_t out_dims = 0;
  for (int i = 0; i < p->noutputs; i++) out_dims += slot_of(&g, IR_SLOT_OUTPUT, i)->rank;
  ir_put(t, "/* %s: generated by Tenon from %s. C99 and C++.\n"
            " *\n"
            " * Link the object; it needs at most memcpy, memset, memmove and libm (-lm). It was compiled\n"
            " * for %s (%s). */\n", comment(ctx, o->prefix), comment(ctx, p->name ? p->name : "a graph"),
         comment(ctx, build->target->name), comment(ctx, build->target->triple));
  ir_put(t, "#ifndef %s_TENON_H\n#define %s_TENON_H\n#include <stddef.h>\n#include <stdint.h>\n\n", u, u);
  ir_put(t, "/* ---- error codes ---- */\n\n");
  static const char *const codes[] = {"OK", "E_ARG", "E_ALIGN", "E_ISA", "E_WEIGHTS", "E_DIMS", "E_DRIVER", "E_DEVICE", "E_MEMORY", "E_CALL"};
  for (int i = 0; i < IR_COUNT(codes) - (o->cuda ? 0 : 4); i++)
    ir_put(t, "#define %s_%s %d%s%s%s\n", u, codes[i], i, i ? " /* " : "", cg_run_error(i), i ? " */" : "");
  ir_put(t, "\n/* ---- inputs and outputs ---- */\n\n");
  ir_put(t, "#define %s_NUM_INPUTS   %d\n#define %s_NUM_OUTPUTS  %d\n#define %s_NUM_DIMS     %d\n#define %s_NUM_OUT_DIMS %lld\n",
         u, p->ninputs, u, p->noutputs, u, p->ndims, u, (long long)out_dims);
  put_dims(&g);
  put_slots(&g, IR_SLOT_INPUT, p->ninputs, "INPUT", "in");
  put_slots(&g, IR_SLOT_OUTPUT, p->noutputs, "OUTPUT", "out");
  if (o->weights == CG_WEIGHTS_POINTER) {
    ir_put(t, "\n/* ---- original tensors, for %s_pack ---- */\n\n#define %s_NUM_RAW %d\n", o->prefix, u, p->nraw);
    put_slots(&g, IR_SLOT_RAW, p->nraw, "RAW", "raw");
  }
  if (p->state_bytes) {
    g.states = IR_NEW_ARRAY(ctx, const ir_slot *, p->nslots + 1);
    g.nstates = states(&g, g.states);
    ir_put(t, "\n/* ---- the state: tensors that runs update, at these offsets ---- */\n\n#define %s_NUM_STATES %d\n", u, g.nstates);
    put_slots(&g, IR_SLOT_STATE, g.nstates, "STATE", "state");
  }
  ir_put(t, "\n");
  put_sizes(&g);
  ir_put(t, "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
  put_functions(&g);
  ir_put(t, "\n#ifdef __cplusplus\n}\n#endif\n#endif\n");
  return ir_text_str(t);
}
