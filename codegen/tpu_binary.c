/* tpu_binary.c — files of TPU programs.
 *
 *   magic "TENONTPU" | u32 version | u32 cores | u64 bytes of the file | u64 hash of all that follows
 *   u64 dram bytes | u32 segments | u32 tags | u64 instructions of each core
 *   machine name | segments | tags | (to a multiple of 64) instructions by core | (64) weights, each at 64
 *
 * Numbers are little-endian; a string is u32 length and bytes. What is read is checked to lie
 * inside the file before it is believed; the hash finds damage, tpu_program_check nonsense.
 */
#include "codegen/tpu_isa.h"
#include "frontend/file.h"
#include <string.h>

static const char magic[8] = {'T', 'E', 'N', 'O', 'N', 'T', 'P', 'U'};
enum { HEAD = 32, ALIGN = 64 };

bool tpu_is_program(const void *bytes, size_t n) { return n >= sizeof magic && memcmp(bytes, magic, sizeof magic) == 0; }

/* ---- writing ---- */

static void put(ir_text *t, const void *p, size_t n) { ir_put_bytes(t, p, n); }
static void put_u32(ir_text *t, uint32_t v) { put(t, &v, 4); }
static void put_i64(ir_text *t, int64_t v) { put(t, &v, 8); }

static void put_string(ir_text *t, const char *s) {
  put_u32(t, (uint32_t)strlen(s));
  put(t, s, strlen(s));
}

static size_t aligned(size_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

static void put_aligned(ir_text *t) {
  static const char zeros[ALIGN];
  put(t, zeros, aligned(t->n) - t->n);
}

static void put_segment(ir_text *t, const tpu_segment *s) {
  put_string(t, s->name);
  put_u32(t, s->kind);
  put_u32(t, (uint32_t)s->index);
  put_u32(t, s->dtype);
  put_u32(t, (uint32_t)s->rank);
  put_i64(t, s->addr);
  put_i64(t, s->bytes);
  for (int d = 0; d < s->rank; d++) put_i64(t, s->dims[d]);
}

/* All but the weights, with their places; the head's size and hash are still to be filled in. */
static void put_program(ir_text *t, const tpu_program *p) {
  put(t, magic, sizeof magic);
  put_u32(t, TPU_FILE_VERSION);
  put_u32(t, (uint32_t)p->ncores);
  put_i64(t, 0);
  put_i64(t, 0);
  put_i64(t, p->dram_bytes);
  put_u32(t, (uint32_t)p->nsegments);
  put_u32(t, (uint32_t)p->ntags);
  for (int c = 0; c < p->ncores; c++) put_i64(t, p->core[c].n);
  put_string(t, p->machine);
  for (int k = 0; k < p->nsegments; k++) put_segment(t, &p->segments[k]);
  for (int k = 0; k < p->ntags; k++) {
    const tpu_tag *g = &p->tags[k];
    put_string(t, g->name);
    for (int j = 0; j < 4; j++) put_i64(t, (const int64_t[]){g->M, g->N, g->K, g->macs}[j]);
  }
  put_aligned(t);
  for (int c = 0; c < p->ncores; c++) put(t, p->core[c].insts, (size_t)p->core[c].n * sizeof(tpu_inst));
}

/* Hash of pieces as of the whole: each is hashed from the hash before. */
static uint64_t weights_hash(const tpu_program *p, uint64_t h, size_t *end) {
  for (int k = 0; k < p->nsegments; k++) {
    const tpu_segment *s = &p->segments[k];
    if (s->kind != TPU_SEG_WEIGHTS) continue;
    h = ir_hash_bytes(s->data, (size_t)s->bytes, h);
    *end = aligned(*end) + (size_t)s->bytes;
  }
  return h;
}

static void fill_head(tn_ctx *ctx, ir_text *t, const tpu_program *p) {
  size_t end = t->n;
  uint64_t h = weights_hash(p, ir_hash_bytes(t->s + HEAD, t->n - HEAD, TPU_FILE_VERSION), &end);
  memcpy(t->s + 16, &(uint64_t){end}, 8);
  memcpy(t->s + 24, &h, 8);
}

static void write_weights(const tpu_program *p, size_t at, void (*out)(void *to, const void *p, size_t n), void *to) {
  static const char zeros[ALIGN];
  for (int k = 0; k < p->nsegments; k++) {
    const tpu_segment *s = &p->segments[k];
    if (s->kind != TPU_SEG_WEIGHTS) continue;
    out(to, zeros, aligned(at) - at);
    out(to, s->data, (size_t)s->bytes);
    at = aligned(at) + (size_t)s->bytes;
  }
}

static void to_text(void *to, const void *p, size_t n) { ir_put_bytes(to, p, n); }
static void to_file(void *to, const void *p, size_t n) { fe_write(to, p, n); }

static void must_be_sound(tn_ctx *ctx, const tpu_program *p) {
  const char *why = tpu_program_check(ctx, NULL, p);
  if (why) ir_bug(ctx, "a TPU program that is none: %s", why);
}

const void *tpu_program_encode(tn_ctx *ctx, const tpu_program *p, size_t *n) {
  must_be_sound(ctx, p);
  ir_text t = {.ctx = ctx};
  put_program(&t, p);
  fill_head(ctx, &t, p);
  write_weights(p, t.n, to_text, &t);
  *n = t.n;
  return t.s;
}

void tpu_program_write(tn_ctx *ctx, const tpu_program *p, const char *path) {
  must_be_sound(ctx, p);
  ir_text t = {.ctx = ctx};
  put_program(&t, p);
  fill_head(ctx, &t, p);
  fe_writer *w = fe_write_begin(ctx, path);
  fe_write(w, t.s, t.n);
  write_weights(p, t.n, to_file, w);
  fe_write_end(w);
}

/* ---- reading ---- */

typedef struct reader {
  tn_ctx *ctx;
  const char *file;
  const uint8_t *bytes;
  size_t n, at;
} reader;

static const void *take(reader *r, size_t n, const char *what) {
  if (n > r->n - r->at) ir_fail(r->ctx, TN_EINPUT, "%s: ends inside %s at byte %zu", r->file, what, r->at);
  const void *p = r->bytes + r->at;
  r->at += n;
  return p;
}

static uint32_t take_u32(reader *r, const char *what) {
  uint32_t v;
  memcpy(&v, take(r, 4, what), 4);
  return v;
}

static int64_t take_i64(reader *r, const char *what) {
  int64_t v;
  memcpy(&v, take(r, 8, what), 8);
  return v;
}

static const char *take_string(reader *r, const char *what) {
  uint32_t n = take_u32(r, what);
  const char *s = take(r, n, what);
  if (memchr(s, 0, n)) ir_fail(r->ctx, TN_EINPUT, "%s: a zero byte in the name of %s", r->file, what);
  return ir_intern(r->ctx, ir_strndup(r->ctx, s, n));
}

/* A count of things of at least `each` bytes: more than fit the file cannot be. */
static int64_t counted(reader *r, int64_t n, size_t each, const char *what) {
  if (n < 0 || (uint64_t)n > (r->n - r->at) / each) ir_fail(r->ctx, TN_EINPUT, "%s: %lld %s are more than the file holds", r->file, (long long)n, what);
  return n;
}

static void take_aligned(reader *r, const char *what) {
  size_t n = aligned(r->at) - r->at;
  const uint8_t *p = take(r, n, what);
  for (size_t k = 0; k < n; k++)
    if (p[k]) ir_fail(r->ctx, TN_EINPUT, "%s: padding before %s that is not zero", r->file, what);
}

static void take_segment(reader *r, tpu_segment *s) {
  s->name = take_string(r, "a segment");
  s->kind = (tpu_segment_kind)take_u32(r, "a segment");
  s->index = (int)take_u32(r, "a segment");
  s->dtype = (tn_dtype)take_u32(r, "a segment");
  uint32_t rank = take_u32(r, "a segment");
  if (rank > IR_MAX_RANK || (unsigned)s->kind >= TPU_SEG_KINDS || (unsigned)s->dtype >= TN_DTYPE_COUNT)
    ir_fail(r->ctx, TN_EINPUT, "%s: segment '%s' has an impossible kind, dtype or rank", r->file, s->name);
  s->rank = (int)rank;
  s->addr = take_i64(r, "a segment");
  s->bytes = take_i64(r, "a segment");
  for (int d = 0; d < s->rank; d++) s->dims[d] = take_i64(r, "a segment");
}

static void take_head(reader *r, tpu_program *p) {
  if (!tpu_is_program(r->bytes, r->n)) ir_fail(r->ctx, TN_EINPUT, "%s: not a TPU program", r->file);
  r->at = sizeof magic;
  uint32_t version = take_u32(r, "the head");
  if (version != TPU_FILE_VERSION) ir_fail(r->ctx, TN_EINPUT, "%s: version %u; this Tenon reads %d", r->file, version, TPU_FILE_VERSION);
  uint32_t cores = take_u32(r, "the head");
  if (cores < 1 || cores > TPU_MAX_CORES) ir_fail(r->ctx, TN_EINPUT, "%s: %u cores", r->file, cores);
  p->ncores = (int)cores;
  if ((uint64_t)take_i64(r, "the head") != r->n) ir_fail(r->ctx, TN_EINPUT, "%s: has %zu bytes, not what its head says: cut off?", r->file, r->n);
}

static void take_texts(reader *r, tpu_program *p) {
  take_aligned(r, "the instructions");
  for (int c = 0; c < p->ncores; c++) {
    counted(r, p->core[c].n, sizeof(tpu_inst), "instructions");
    const void *at = take(r, (size_t)p->core[c].n * sizeof(tpu_inst), "the instructions");
    if ((uintptr_t)at % 8 == 0) p->core[c].insts = (tpu_inst *)(uintptr_t)at; /* nobody writes to them */
    else {
      p->core[c].insts = IR_NEW_ARRAY(r->ctx, tpu_inst, p->core[c].n);
      memcpy(p->core[c].insts, at, (size_t)p->core[c].n * sizeof(tpu_inst));
    }
  }
}

tpu_program *tpu_program_decode(tn_ctx *ctx, const void *bytes, size_t n, const char *file) {
  reader r = {ctx, file, bytes, n, 0};
  tpu_program *p = IR_NEW(ctx, tpu_program);
  take_head(&r, p);
  uint64_t hash = (uint64_t)take_i64(&r, "the head");
  p->dram_bytes = take_i64(&r, "the head");
  uint32_t nsegments = take_u32(&r, "the head"), ntags = take_u32(&r, "the head");
  p->nsegments = (int)counted(&r, nsegments, 36, "segments");
  p->ntags = (int)counted(&r, ntags, 36, "tags");
  for (int c = 0; c < p->ncores; c++) p->core[c].n = take_i64(&r, "the head");
  p->machine = take_string(&r, "the machine");
  p->segments = IR_NEW_ARRAY(ctx, tpu_segment, p->nsegments + 1);
  for (int k = 0; k < p->nsegments; k++) take_segment(&r, &p->segments[k]);
  p->tags = IR_NEW_ARRAY(ctx, tpu_tag, p->ntags + 1);
  for (int k = 0; k < p->ntags; k++) {
    tpu_tag *g = &p->tags[k];
    g->name = take_string(&r, "a tag");
    for (int j = 0; j < 4; j++) *(int64_t *[]){&g->M, &g->N, &g->K, &g->macs}[j] = take_i64(&r, "a tag");
  }
  take_texts(&r, p);
  size_t end = r.at;
  for (int k = 0; k < p->nsegments; k++) {
    tpu_segment *s = &p->segments[k];
    if (s->kind != TPU_SEG_WEIGHTS) continue;
    take_aligned(&r, "weights");
    counted(&r, s->bytes, 1, "bytes of weights");
    s->data = take(&r, (size_t)s->bytes, "weights");
  }
  if (r.at != n) ir_fail(ctx, TN_EINPUT, "%s: %zu bytes behind its end", file, n - r.at);
  if (weights_hash(p, ir_hash_bytes(r.bytes + HEAD, end - HEAD, TPU_FILE_VERSION), &end) != hash)
    ir_fail(ctx, TN_EINPUT, "%s: its checksum is wrong: damaged", file);
  const char *why = tpu_program_check(ctx, NULL, p);
  if (why) ir_fail(ctx, TN_EINPUT, "%s: %s", file, why);
  return p;
}

tpu_program *tpu_program_read(tn_ctx *ctx, const char *path) {
  const fe_map *m = fe_map_file(ctx, path);
  return tpu_program_decode(ctx, m->data, m->size, path);
}
