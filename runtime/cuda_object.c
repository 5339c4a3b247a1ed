/* cuda_object.c — see cuda_object.h. */
#include "runtime/cuda_object.h"
#include <string.h>

typedef struct image { /* bytes so far; what was placed stays where it is, so structs are written once complete */
  tn_ctx *ctx;
  char *bytes;
  size_t n, room;
  ir_var **dims; /* of the program */
  int ndims, nnumbers;
  cg_number *numbers;
} image;

static uint64_t place(image *m, const void *data, size_t bytes, size_t align) {
  size_t at = (m->n + align - 1) / align * align;
  if (at + bytes > m->room) {
    size_t room = (at + bytes) * 2;
    char *more = ir_alloc(m->ctx, room);
    if (m->n) memcpy(more, m->bytes, m->n);
    m->bytes = more;
    m->room = room;
  }
  memset(m->bytes + m->n, 0, at - m->n);
  if (bytes) memcpy(m->bytes + at, data, bytes);
  m->n = at + bytes;
  return at;
}

static cu_image_arg arg_of(tn_ctx *ctx, const ir_slot *s) {
  return (cu_image_arg){.base = cu_image_base_of(ctx, s), .index = (uint32_t)s->index, .offset = (uint64_t)s->offset, .step = (uint64_t)s->step};
}

/* The number of an expression of sizes. */
static uint32_t add_number(image *m, ix value, int nvars, ir_var *const *vars) {
  cg_number n = {value, nvars, vars};
  IR_PUSH(m->ctx, m->numbers, m->nnumbers, n);
  return (uint32_t)m->nnumbers;
}

typedef struct steps {
  uint64_t nmaps;
  int n;
  cu_image_step *all;
} steps;

uint64_t rt_cuda_map_of(const cu_map *m, cu_image_map *to) {
  *to = (cu_image_map){.type = m->dtype == TN_F16 ? CU_MAP_F16 : m->dtype == TN_BF16 ? CU_MAP_BF16 : CU_MAP_U8, .rank = (uint32_t)m->rank, .channels = (uint32_t)m->channels, .pixels = (uint32_t)m->pixels};
  uint64_t size = ir_dtype_bytes(m->dtype);
  for (int i = 0; i < m->rank; i++) {
    to->extents[i] = (uint64_t)m->extent[i];
    if (i) to->strides[i - 1] = (uint64_t)m->stride[i] * size;
    to->box[i] = (uint32_t)m->box[i];
    to->steps[i] = (uint32_t)m->step[i];
  }
  memcpy(to->lower, m->lower, sizeof to->lower);
  memcpy(to->upper, m->upper, sizeof to->upper);
  return (uint64_t)m->offset * size;
}

static void add_step(image *m, steps *s, cu_image_step t, const cu_image_arg *args, int nargs) {
  t.nargs = (uint32_t)nargs;
  t.args = place(m, args, sizeof *args * (size_t)nargs, 8);
  IR_PUSH(m->ctx, s->all, s->n, t);
}

static void add_call(image *m, steps *s, const rt_cuda_plan *p, const ir_inst *c, int kernel) {
  const rt_cuda_kernel *k = &p->kernels[c->kernel];
  for (int l = 0; l < k->code->nlaunches; l++) {
    const cu_launch *from = &k->code->launches[l];
    int64_t grid = 0;
    bool fixed = ix_const_value(from->grid, &grid);
    if (fixed && !grid) continue;
    if (grid > INT32_MAX || c->nargs + from->nmaps + k->kernel->ndims >= CU_IMAGE_MAX_ARGS) ir_fail(m->ctx, TN_EUNSUPPORTED, "kernel '%s': %lld blocks, %d tensors", k->kernel->name, (long long)grid, c->nargs);
    cu_image_arg args[CU_IMAGE_MAX_ARGS];
    int n = 0;
    for (; n < c->nargs; n++) args[n] = arg_of(m->ctx, &p->program->slots[c->args[n]]);
    if (cu_launch_scratch(from, 1)) args[n++] = (cu_image_arg){.base = CU_IMAGE_SCRATCH};
    cu_image_step t = {.kernel = (uint32_t)kernel, .grid = (uint32_t)grid, .threads = (uint32_t)from->threads, .shared = (uint32_t)from->shared_bytes,
                       .symbol = place(m, from->symbol, strlen(from->symbol) + 1, 1), .nmaps = (uint32_t)from->nmaps, .first_map = s->nmaps, .ndims = (uint32_t)k->kernel->ndims};
    if (!fixed) t.number = add_number(m, from->grid, k->kernel->ndims, k->kernel->dims);
    cu_image_map *maps = IR_NEW_ARRAY(m->ctx, cu_image_map, from->nmaps + 1);
    for (int i = 0; i < from->nmaps; i++) {
      uint64_t offset = rt_cuda_map_of(&from->maps[i], &maps[i]);
      maps[i].tensor = args[from->maps[i].param];
      maps[i].tensor.offset += offset;
    }
    t.maps = place(m, maps, sizeof *maps * (size_t)from->nmaps, 8);
    s->nmaps += (uint64_t)from->nmaps;
    add_step(m, s, t, args, n);
  }
}

static void add_copy(image *m, steps *s, const rt_cuda_plan *p, const ir_inst *c) {
  const ir_slot *to = &p->program->slots[c->args[0]], *from = &p->program->slots[c->args[1]];
  cu_image_arg args[2] = {arg_of(m->ctx, to), arg_of(m->ctx, from)};
  if (to->bytes) add_step(m, s, (cu_image_step){.kernel = CU_IMAGE_COPY, .bytes = (uint64_t)to->bytes}, args, 2);
}

typedef struct calls {
  int n;
  cu_image_call *all;
} calls;

/* In the order of codegen/entry.c's walk. */
static void add_insts(image *m, steps *s, calls *all, const rt_cuda_plan *p, const int *number, int n, const ir_inst *insts) {
  for (int i = 0; i < n; i++) {
    const ir_inst *c = &insts[i];
    cu_image_call call = {.first = (uint32_t)s->n};
    add_insts(m, s, all, p, number, c->nbody, c->body);
    add_insts(m, s, all, p, number, c->nother, c->other);
    if (c->kind == IR_CALL) add_call(m, s, p, c, number[c->kernel]);
    else if (c->kind == IR_COPY_SLOT) add_copy(m, s, p, c);
    else continue;
    call.n = (uint32_t)s->n - call.first;
    IR_PUSH(m->ctx, all->all, all->n, call);
  }
}

static cu_image_arch add_arch(image *m, const rt_cuda_plan *p) {
  cu_image_arch a = {.sm = (uint32_t)p->target->sm, .exact = p->target->hopper, .scratch_bytes = (uint64_t)p->scratch_bytes};
  cu_image_kernel *kernels = IR_NEW_ARRAY(m->ctx, cu_image_kernel, p->nkernels + 1);
  int *number = IR_NEW_ARRAY(m->ctx, int, p->nkernels + 1);
  for (int i = 0; i < p->nkernels; i++) {
    if (!p->kernels[i].kernel) continue;
    if (!p->kernels[i].cubin) ir_fail(m->ctx, TN_EUSAGE, "a plan that was not compiled cannot become an object");
    number[i] = (int)a.nkernels;
    kernels[a.nkernels++].cubin = place(m, p->kernels[i].cubin->bytes, p->kernels[i].cubin->size, 64);
  }
  steps s = {0};
  calls all = {0};
  add_insts(m, &s, &all, p, number, p->program->nrun, p->program->run);
  a.calls = place(m, all.all, sizeof *all.all * (size_t)all.n, 8);
  a.nsteps = (uint32_t)s.n;
  a.nmaps = s.nmaps;
  a.kernels = place(m, kernels, sizeof *kernels * a.nkernels, 8);
  a.steps = place(m, s.all, sizeof *s.all * (size_t)s.n, 8);
  return a;
}

static uint64_t add_io(image *m, const ir_program *g, ir_slot_kind kind, int n) {
  cu_image_io *io = IR_NEW_ARRAY(m->ctx, cu_image_io, n + 1);
  for (int i = 0; i < n; i++) io[i].align = 1;
  for (int i = 0; i < g->nslots; i++) {
    const ir_slot *s = &g->slots[i];
    if (s->kind != kind || s->offset) continue;
    cu_image_io *to = &io[s->index];
    if ((uint64_t)s->bytes > to->bytes) to->bytes = (uint64_t)s->bytes;
    to->align = ir_dtype_bytes(s->dtype);
    to->back |= s->inout;
    bool found = false; /* by the run: all is copied */
    for (int a = 0; a < s->rank && s->sizes; a++) found |= ir_extent_slot(g, s->sizes[a]) >= 0;
    if (!s->sizes || found) continue;
    ix bytes = ix_index(m->ctx, (int64_t)to->align);
    for (int a = 0; a < s->rank; a++) bytes = ix_mul(m->ctx, bytes, s->sizes[a]);
    to->number = add_number(m, bytes, m->ndims, m->dims);
  }
  return place(m, io, sizeof *io * (size_t)n, 8);
}

static uint64_t add_out_dims(image *m, const ir_program *g, uint32_t *n) {
  cu_image_extent *dims = NULL;
  int count = 0;
  for (int o = 0; o < g->noutputs; o++)
    for (int i = 0; i < g->nslots; i++) {
      const ir_slot *s = &g->slots[i];
      if (s->kind != IR_SLOT_OUTPUT || s->index != o) continue;
      for (int d = 0; d < s->rank; d++) {
        cu_image_extent e = {.n = s->dims[d]};
        int found = s->sizes ? ir_extent_slot(g, s->sizes[d]) : -1;
        if (found >= 0) {
          cu_image_arg from = arg_of(m->ctx, &g->slots[found]);
          e.found = 1, e.base = from.base, e.index = from.index, e.offset = from.offset;
        } else if (s->sizes) e.number = add_number(m, s->sizes[d], m->ndims, m->dims);
        IR_PUSH(m->ctx, dims, count, e);
      }
      break;
    }
  *n = (uint32_t)count;
  return place(m, dims, sizeof *dims * (size_t)count, 8);
}

cg_cuda_part rt_cuda_image(tn_ctx *ctx, int n, const rt_cuda_plan *const plans[]) {
  image m = {.ctx = ctx};
  const ir_program *g = plans[0]->program;
  for (int i = 0; i < g->ndims; i++) IR_PUSH(ctx, m.dims, m.ndims, g->dims[i].var);
  cu_image head = {.narchs = (uint32_t)n, .nin = (uint32_t)g->ninputs, .nout = (uint32_t)g->noutputs, .ndims = (uint32_t)g->ndims, .weights_bytes = (uint64_t)g->weights_bytes,
                   .arena_bytes = (uint64_t)g->arena_bytes, .state_bytes = (uint64_t)g->state_bytes, .blob_header = CG_BLOB_HEADER};
  cg_blob_header blob = cg_blob_header_of(ctx, g);
  memcpy(head.blob, &blob, sizeof head.blob);
  place(&m, &head, sizeof head, 8);
  head.in = add_io(&m, g, IR_SLOT_INPUT, g->ninputs);
  head.out = add_io(&m, g, IR_SLOT_OUTPUT, g->noutputs);
  head.out_dims = add_out_dims(&m, g, &head.nout_dims);
  cu_image_arch *archs = IR_NEW_ARRAY(ctx, cu_image_arch, n);
  ir_text names = {.ctx = ctx};
  for (int i = 0; i < n; i++) {
    archs[i] = add_arch(&m, plans[i]);
    uint64_t bytes = sizeof(cu_session) + 8 * ((uint64_t)archs[i].nkernels + archs[i].nsteps + head.nin + head.nout + (uint64_t)head.ndims * CU_IMAGE_GRAPHS);
    if (archs[i].nmaps) bytes += 64 + CU_MAP_BYTES * archs[i].nmaps;
    if (bytes > head.session_bytes) head.session_bytes = bytes;
    ir_put(&names, "%s%s", i ? ", " : "", plans[i]->target->name);
  }
  head.archs = place(&m, archs, sizeof *archs * (size_t)n, 8);
  memcpy(m.bytes, &head, sizeof head);
  return (cg_cuda_part){m.bytes, m.n, (int64_t)head.session_bytes, names.s, plans[0]->walked, m.nnumbers, m.numbers};
}

void rt_cuda_write_object(tn_ctx *ctx, int n, const rt_cuda_plan *const plans[], const rt_object_options *given) {
  const ir_program *g = plans[0]->program;
  rt_object_options o = *given;
  cg_cuda_part part = rt_cuda_image(ctx, n, plans);
  o.files.cuda = &part;
  rt_write_object(ctx, g, &o);
}
