/* cli_sim_trace.c — what happened when: the recorder, and it as a Chrome trace. */
#include "frontend/cli_sim.h"
#include <math.h>
#include <string.h>

sim_recorder *sim_recorder_new(tn_ctx *ctx, int most, int64_t ub_bytes) {
  sim_recorder *r = IR_NEW(ctx, sim_recorder);
  r->ctx = ctx, r->most = most, r->width = 1;
  r->block = (ub_bytes + SIM_BLOCKS - 1) / SIM_BLOCKS;
  memset(r->blocks, -1, sizeof r->blocks);
  for (int i = 0; i < SIM_BINS; i++) r->fifo[i] = -1;
  return r;
}

/* b behind a: one span when they are of a row and stand closer than gap. */
static bool join(sim_span *a, const sim_span *b, int64_t gap) {
  if (a->row != b->row || b->start - a->end > gap || (gap == 0 && a->op != b->op)) return false;
  if (b->end > a->end) a->end = b->end;
  a->busy += b->busy, a->bytes += b->bytes, a->count += b->count;
  if (b->fifo > a->fifo) a->fifo = b->fifo;
  return true;
}

static int squeeze(int n, sim_span *s, int64_t gap) {
  int kept = 0;
  for (int i = 0; i < n; i++)
    if (!kept || !join(&s[kept - 1], &s[i], gap)) s[kept++] = s[i];
  return kept;
}

static void squeeze_all(sim_recorder *r) {
  while (r->nspans > r->most / 2 && r->gap < INT64_MAX / 4) { /* else a row each is too many already */
    r->gap = r->gap ? 2 * r->gap : 16;
    r->nspans = 0;
    for (int c = 0; c < TPU_MAX_CORES; c++)
      for (int u = 0; u < TPU_UNITS; u++) r->nspans += r->track[c][u].n = squeeze(r->track[c][u].n, r->track[c][u].spans, r->gap);
  }
}

/* Spreads an amount over the bins of [start, end). */
static void spread(const sim_recorder *r, double *bins, int64_t start, int64_t end, double amount) {
  int64_t a = start / r->width, b = end / r->width;
  for (int64_t i = a; i <= b; i++) {
    int64_t from = i * r->width > start ? i * r->width : start, to = (i + 1) * r->width < end ? (i + 1) * r->width : end;
    bins[i] += end > start ? amount * (double)(to - from) / (double)(end - start) : amount;
  }
}

static void bin(sim_recorder *r, const sim_span *s) {
  while (s->end / r->width >= SIM_BINS) { /* half as many bins, twice as wide */
    for (int i = 0; i < SIM_BINS / 2; i++) {
      r->bytes[i] = r->bytes[2 * i] + r->bytes[2 * i + 1];
      r->in_use[i] = r->in_use[2 * i] + r->in_use[2 * i + 1];
      r->fifo[i] = r->fifo[2 * i] > r->fifo[2 * i + 1] ? r->fifo[2 * i] : r->fifo[2 * i + 1];
    }
    for (int i = SIM_BINS / 2; i < SIM_BINS; i++) r->bytes[i] = r->in_use[i] = 0, r->fifo[i] = -1;
    r->width *= 2;
  }
  int64_t a = s->start / r->width;
  if (s->fifo >= 0 && s->fifo > r->fifo[a]) r->fifo[a] = s->fifo;
  if (s->bytes) spread(r, r->bytes, s->start, s->end, (double)s->bytes);
}

/* The block was in use from its write to its last read. */
static void close_block(sim_recorder *r, int core, int k) {
  int64_t from = r->blocks[core][k].written, to = r->blocks[core][k].read;
  if (from >= 0 && to > from) spread(r, r->in_use, from, to, (double)r->block * (double)(to - from));
  r->blocks[core][k].written = r->blocks[core][k].read = -1;
}

static void watch(sim_recorder *r, int core, const tpu_inst *i, int64_t start, int64_t end) {
  tpu_box box[TPU_BOXES];
  int n = tpu_boxes(i, box);
  for (int pass = 0; pass < 2; pass++) /* reads come first */
    for (int b = 0; b < n; b++) {
      if (box[b].space != TPU_UB || box[b].write != pass || box[b].hi <= box[b].lo) continue;
      for (int64_t k = box[b].lo / r->block; k <= (box[b].hi - 1) / r->block && k < SIM_BLOCKS; k++) {
        if (!box[b].write) r->blocks[core][k].read = end;
        else {
          if (r->blocks[core][k].read >= 0) close_block(r, core, (int)k);
          if (r->blocks[core][k].written < 0) r->blocks[core][k].written = start;
        }
      }
    }
}

void sim_recorded(sim_recorder *r) {
  for (int c = 0; c < TPU_MAX_CORES; c++)
    for (int k = 0; k < SIM_BLOCKS; k++) close_block(r, c, k);
}

void sim_record(void *recorder, const tpu_event *e) {
  sim_recorder *r = recorder;
  bool tiles = e->unit == TPU_UNIT_MATRIX || e->unit == TPU_UNIT_WEIGHTS;
  sim_span s = {.start = r->at + e->start, .end = r->at + e->end, .busy = e->end - e->start, .bytes = e->bytes, .count = 1, .row = r->row_of_tag[e->tag], .op = e->inst->op,
                .fifo = tiles ? e->fifo : -1};
  bin(r, &s);
  if (r->block) watch(r, e->core, e->inst, s.start, s.end);
  int *n = &r->track[e->core][e->unit].n;
  sim_span **spans = &r->track[e->core][e->unit].spans;
  if (r->gap && *n && join(&(*spans)[*n - 1], &s, r->gap)) return;
  if (r->nspans >= r->most) squeeze_all(r);
  IR_PUSH(r->ctx, *spans, *n, s);
  r->nspans++;
}

int sim_joined(const sim_recorder *r, int core, int unit, int most, sim_span **out) {
  int n = r->track[core][unit].n;
  sim_span *s = *out = ir_grow(r->ctx, r->track[core][unit].spans, (size_t)n, (size_t)n + 1, sizeof *s);
  for (int64_t gap = r->gap ? r->gap : 16; n > most && gap < INT64_MAX / 4; gap *= 2) n = squeeze(n, s, gap);
  return n;
}

/* ---- Chrome trace: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
 * (Trace Event Format), which Perfetto reads. Times are microseconds. ---- */

static void meta(ir_text *t, const char *what, int pid, int tid, const char *name) {
  ir_put(t, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"args\":{\"name\":", pid, tid, what);
  cj_quote(t, name);
  ir_put(t, "}}");
  if (strcmp(what, "thread_name") == 0) ir_put(t, ",\n{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":%d}}", pid, tid, tid);
}

/* In whole nanoseconds, both ends: viewers drop what overlaps its neighbour by a fraction. */
static void complete(ir_text *t, int pid, int tid, double from, double to, const char *name) {
  double start = floor(from * 1e3), end = floor(to * 1e3);
  ir_put(t, ",\n{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"name\":", pid, tid, start * 1e-3, (end - start) * 1e-3);
  cj_quote(t, name);
}

static void counter(ir_text *t, const char *name, double at, const char *unit, double v) {
  ir_put(t, ",\n{\"ph\":\"C\",\"pid\":1,\"ts\":%.6f,\"name\":\"%s\",\"args\":{\"%s\":%.6g}}", at, name, unit, v);
}

const char *sim_trace(const sim *s) {
  const sim_recorder *r = s->recorder;
  ir_text text = {.ctx = s->c->ctx}, *t = &text;
  double us = 1 / s->machine->clock_mhz; /* of a cycle */
  ir_put(t, "{\"displayTimeUnit\":\"ns\",\"otherData\":{\"machine\":");
  cj_quote(t, s->machine->name);
  ir_put(t, ",\"joined_gap_cycles\":%lld},\"traceEvents\":[\n{\"ph\":\"M\",\"pid\":1,\"tid\":0,\"name\":\"process_name\",\"args\":{\"name\":", (long long)r->gap);
  cj_quote(t, ir_format(s->c->ctx, "%s on %s", s->path, s->machine->name));
  ir_put(t, "}}");
  meta(t, "thread_name", 1, 0, "layers");
  for (int k = 0; k < s->nrows; k++) {
    const sim_row *w = &s->rows[k];
    complete(t, 1, 0, us * (double)w->start, us * (double)w->end, w->name);
    ir_put(t, ",\"args\":{\"M\":%lld,\"N\":%lld,\"K\":%lld,\"cycles\":%lld,\"utilization\":%.4f}}", (long long)w->M, (long long)w->N, (long long)w->K, (long long)w->cycles,
           w->utilization);
  }
  for (int c = 0; c < s->cores; c++) {
    int pid = 2 + c;
    meta(t, "process_name", pid, 0, ir_format(s->c->ctx, "core %d", c));
    for (int u = 0; u < TPU_UNITS; u++) {
      if (!r->track[c][u].n) continue;
      meta(t, "thread_name", pid, u, tpu_unit_names[u]);
      for (int i = 0; i < r->track[c][u].n; i++) {
        const sim_span *x = &r->track[c][u].spans[i];
        const char *name = tpu_ops[x->op].name;
        complete(t, pid, u, us * (double)x->start, us * (double)x->end, x->count > 1 ? ir_format(s->c->ctx, "%s x%lld", name, (long long)x->count) : name);
        ir_put(t, ",\"args\":{\"layer\":");
        cj_quote(t, x->row >= 0 ? s->rows[x->row].name : "");
        ir_put(t, ",\"start_cycle\":%lld,\"busy_cycles\":%lld,\"bytes\":%lld}}", (long long)x->start, (long long)x->busy, (long long)x->bytes);
      }
    }
  }
  int fifo = 0;
  for (int i = 0; i < SIM_BINS && i * r->width <= s->cycles; i++) {
    double at = us * (double)(i * r->width);
    counter(t, "DRAM bandwidth", at, "GB/s", r->bytes[i] / (us * (double)r->width) * 1e-3);
    if (r->fifo[i] >= 0) fifo = r->fifo[i];
    counter(t, "weight FIFO", at, "tiles", fifo);
    if (r->block) counter(t, "on-chip memory in use", at, "MB", r->in_use[i] / (double)r->width * 1e-6);
  }
  ir_put(t, "\n]}\n");
  return ir_text_str(t);
}
