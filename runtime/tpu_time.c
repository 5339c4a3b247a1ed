/* tpu_time.c — when an instruction starts and ends, and on whose account the array waits.
 *
 * All times are sums and maxima of earlier times and of costs that fall when a bandwidth rises, and
 * the order in which instructions are looked at depends on the program alone. So, with one core, no
 * time ever rises with a bandwidth.
 */
#include "runtime/tpu_internal.h"
#include <math.h>
#include <string.h>

/* ---- clocks, waits, signals ---- */

void tpu_join(tpu_clock *into, const tpu_clock *from) {
  for (int u = 0; u < TPU_UNITS; u++)
    if (from->known[u] > into->known[u]) into->known[u] = from->known[u];
}

tpu_done *tpu_done_of(tpu_core *c, int unit, int64_t index) { return &c->unit[unit].done[index & (c->sim->history - 1)]; }

bool tpu_waits_known(const tpu_core *c, const tpu_pending *p) {
  const tpu_inst *i = p->inst;
  if (!p->waits) return true;
  for (int w = 0; w < TPU_UNITS; w++)
    if (p->after[w] >= c->unit[w].timed) return false;
  for (int k = 0; k < 2; k++) {
    if (!i->wait[k]) continue;
    const tpu_semaphore *s = &c->sem[i->wait[k]];
    if (s->tail - s->head < (k == 1 && i->wait[0] == i->wait[1] ? 2 : 1)) return false;
  }
  return true;
}

static void claim(tpu_core *c, const tpu_inst *i, int64_t number, int semaphore, int8_t *role, int unit, const char *what) {
  if (*role < 0) *role = (int8_t)unit;
  if (*role != unit)
    tpu_fault(c, i, number, "semaphore %d has two units that %s it: %s and %s", semaphore, what, tpu_unit_names[*role], tpu_unit_names[unit]);
}

int64_t tpu_take_waits(tpu_core *c, const tpu_pending *p, int unit, tpu_clock *clock, int64_t *cause) {
  int64_t latest = 0;
  if (!p->waits) return 0;
  for (int w = 0; w < TPU_UNITS; w++) {
    if (p->after[w] < 0) continue;
    const tpu_done *d = tpu_done_of(c, w, p->after[w]);
    if (d->time > cause[w]) cause[w] = d->time;
    if (d->time > latest) latest = d->time;
    if (!c->sim->checks) continue;
    tpu_join(clock, &d->clock);
    if (clock->known[w] < p->after[w] + 1) clock->known[w] = p->after[w] + 1;
  }
  for (int k = 0; k < 2; k++) {
    int id = p->inst->wait[k];
    if (!id) continue;
    tpu_semaphore *s = &c->sem[id];
    claim(c, p->inst, p->number, id, &s->waiter, unit, "wait for");
    const tpu_done *d = &s->times[s->head++ & (s->cap - 1)];
    if (d->time > cause[s->signaller]) cause[s->signaller] = d->time;
    if (d->time > latest) latest = d->time;
    tpu_join(clock, &d->clock);
  }
  return latest;
}

static void signal_one(tpu_core *c, const tpu_inst *i, int64_t number, int unit, int id, const tpu_done *d) {
  tpu_semaphore *s = &c->sem[id];
  claim(c, i, number, id, &s->signaller, unit, "signal");
  if (s->tail - s->head >= TPU_COUNT_MAX) tpu_fault(c, i, number, "semaphore %d counts beyond %d", id, TPU_COUNT_MAX);
  if (s->tail - s->head == s->cap) {
    int64_t cap = s->cap ? 2 * s->cap : 8;
    tpu_done *times = IR_NEW_ARRAY(c->sim->ctx, tpu_done, cap);
    for (int64_t k = s->head; k < s->tail; k++) times[k & (cap - 1)] = s->times[k & (s->cap - 1)];
    s->times = times;
    s->cap = cap;
  }
  s->times[s->tail++ & (s->cap - 1)] = *d;
}

void tpu_send_signals(tpu_core *c, const tpu_inst *i, int64_t number, int unit, int64_t time, const tpu_clock *clock) {
  tpu_done d = {time, *clock};
  for (int k = 0; k < 2; k++)
    if (i->signal[k]) signal_one(c, i, number, unit, i->signal[k], &d);
}

/* ---- whose time it is: cycles in which the array works belong to the tag that it works for, all others to the first visit
 * of a tag that was not finished then ---- */

typedef enum { ACTIVE, WEIGHT_STALL, WEIGHT_SHIFT, RAW_STALL, INPUT_STALL, OTHER_STALL } account;

static void book(tpu_cycles *t, account a, int64_t n) {
  t->total += n;
  switch (a) {
  case ACTIVE: t->active += n; return;
  case WEIGHT_STALL: t->weight_stall += n; return;
  case WEIGHT_SHIFT: t->weight_shift += n; return;
  case RAW_STALL: t->raw_stall += n; break;
  case INPUT_STALL: t->input_stall += n; break;
  case OTHER_STALL: t->other_stall += n; break;
  }
  t->non_matrix += n;
}

/* Attributes the cycles from the cursor to `until`, which nobody has attributed yet. */
static void account_until(tpu_core *c, int64_t until, account a, int tag) {
  while (c->cursor < until) {
    int64_t end = until;
    int whose = tag;
    if (c->visit_head < c->visit_tail && a != ACTIVE) {
      tpu_visit v = c->visit[c->visit_head & (TPU_VISITS - 1)];
      if (v.until <= c->cursor) {
        c->visit_head++;
        continue;
      }
      whose = v.tag;
      if (v.until < end) end = v.until;
    }
    book(&c->tags[whose].counts.cycles, a, end - c->cursor);
    c->cursor = end;
  }
}

void tpu_switch_tag(tpu_core *c, int tag) {
  if (tag == c->tag) return;
  int64_t before = c->visit_tail > c->visit_head ? c->visit[(c->visit_tail - 1) & (TPU_VISITS - 1)].until : 0;
  tpu_visit v = {c->tag_last > before ? c->tag_last : before, c->tag};
  if (c->visit_tail - c->visit_head == TPU_VISITS) c->visit_head++; /* the oldest is counted to the next one */
  c->visit[c->visit_tail++ & (TPU_VISITS - 1)] = v;
  c->tag = tag;
  c->tag_last = 0;
}

void tpu_close_account(tpu_core *c) { account_until(c, c->end, OTHER_STALL, c->tag); }

/* ---- what an instruction costs ---- */

typedef struct cost {
  int64_t occupy;               /* cycles of the unit, transfers apart */
  int64_t reads, writes;        /* DRAM bytes, whole bursts */
  bool moves;
} cost;

/* Bytes of DRAM traffic of a box: contiguous runs in whole bursts. */
static int64_t traffic(const tpu_machine *m, const tpu_box *b) {
  if (b->lo >= b->hi) return 0;
  int64_t runs = 1;
  for (int d = 0; d < b->n; d++) runs *= b->extent[d];
  return runs * ((b->run + m->dram_burst - 1) / m->dram_burst * m->dram_burst);
}

static int64_t box_bytes(const tpu_box *b) {
  int64_t n = b->lo < b->hi ? b->run : 0;
  for (int d = 0; d < b->n; d++) n *= b->extent[d];
  return n;
}

/* On-chip traffic of an operand: a broadcast is read once. */
static void count_on_chip(tpu_counts *n, const tpu_operand *o, const int32_t *extent, bool write) {
  if (o->space != TPU_UB && o->space != TPU_ACC) return;
  int64_t bytes = (int64_t)ir_dtype_bytes((tn_dtype)o->dtype);
  for (int d = 0; d < 4; d++)
    if (o->stride[d] || !extent[d]) bytes *= extent[d];
  if (o->space == TPU_UB) *(write ? &n->ub_written : &n->ub_read) += bytes;
  else *(write ? &n->acc_written : &n->acc_read) += bytes;
}

static cost dma_cost(const tpu_machine *m, const tpu_inst *i, tpu_counts *n) {
  cost k = {.moves = true};
  tpu_box box[TPU_BOXES];
  int boxes = tpu_boxes(i, box);
  for (int b = 0; b < boxes; b++) {
    if (box[b].space == TPU_DRAM) {
      *(box[b].write ? &k.writes : &k.reads) += traffic(m, &box[b]);
      *(box[b].write ? &n->dram_written : &n->dram_read) += box_bytes(&box[b]);
    } else *(box[b].write ? &n->ub_written : &n->ub_read) += box_bytes(&box[b]);
  }
  if (i->op == TPU_LOAD_ROWS || i->op == TPU_STORE_ROWS) { /* the side that the indices choose: as the other, row by row */
    const tpu_operand *o = i->op == TPU_LOAD_ROWS ? &i->src : &i->dst;
    int32_t row[4] = {1, i->extent[1], i->extent[2], i->extent[3]};
    tpu_box b = tpu_operand_box(o, row, i->op == TPU_STORE_ROWS);
    int64_t bytes = i->extent[0] * box_bytes(&b);
    if (b.space == TPU_DRAM) {
      *(b.write ? &k.writes : &k.reads) += i->extent[0] * traffic(m, &b);
      *(b.write ? &n->dram_written : &n->dram_read) += bytes;
    } else *(b.write ? &n->ub_written : &n->ub_read) += bytes;
  }
  if (!k.reads && !k.writes) /* within the chip: a row of the vector unit a cycle */
    k.occupy = (tpu_elements(i->extent) * (int64_t)ir_dtype_bytes((tn_dtype)i->dst.dtype) + 4 * m->lanes - 1) / (4 * m->lanes);
  return k;
}

static cost weights_cost(const tpu_sim *s, const tpu_inst *i, tpu_counts *n) {
  const tpu_machine *m = s->m;
  cost k = {.moves = true};
  if (i->src.space == TPU_DRAM) {
    tpu_box b = tpu_operand_box(&i->src, i->extent, false);
    k.reads = traffic(m, &b);
    if (m->pad_tiles) {
      int64_t whole = m->rows * tpu_tile_cols(m) * (int64_t)ir_dtype_bytes((tn_dtype)i->src.dtype);
      if (k.reads < whole) k.reads = whole;
    }
    n->dram_read += box_bytes(&b);
  } else count_on_chip(n, &i->src, i->extent, false);
  int64_t elements = tpu_elements(i->extent);
  *(m->dataflow == TPU_IS ? &n->sram_ifmap_reads : &n->sram_filter_reads) += elements;
  return k;
}

static double pj_mac(const tpu_machine *m, int dtype) {
  return dtype == TN_I8 || dtype == TN_U8 ? m->pj_mac_int8 : dtype == TN_F32 ? m->pj_mac_f32 : m->pj_mac_bf16;
}

/* Cycles that a product takes: its rows, dearer where all of K is one window. */
static double product_cycles(const tpu_machine *m, const tpu_inst *i, int64_t streamed) {
  const tpu_window *w = &i->win;
  double row = tpu_row_cycles(m, (tn_dtype)i->src.dtype);
  if ((int64_t)w->kc * w->kd * w->kh * w->kw <= m->window_depth) row += m->window_cycles;
  return (double)streamed * row;
}

static cost matmul_cost(const tpu_sim *s, const tpu_inst *i, tpu_counts *n) {
  const tpu_machine *m = s->m;
  int64_t rows = (int64_t)i->extent[0] * i->extent[1] * i->extent[2], cols = i->extent[3], k = i->win.k_count;
  int64_t streamed = m->dataflow == TPU_OS ? k : rows;
  cost t = {0};
  if (s->scalesim) t.occupy = streamed + m->rows + m->cols - 2;
  else
    t.occupy = (int64_t)ceil(product_cycles(m, i, streamed)) + m->matmul_overhead;
  int64_t macs = rows * cols * k, size = (int64_t)ir_dtype_bytes((tn_dtype)i->src.dtype);
  n->matmuls++;
  n->macs += macs;
  n->mac_slots += t.occupy * m->rows * tpu_tile_cols(m);
  n->ub_read += rows * k * size;
  n->acc_written += rows * cols * 4;
  if (i->flags & TPU_ACCUMULATE) n->acc_read += rows * cols * 4;
  *(m->dataflow == TPU_IS ? &n->sram_filter_reads : &n->sram_ifmap_reads) += rows * k;
  n->sram_ofmap_writes += rows * cols;
  if (s->scalesim && s->o.faults && m->dataflow == TPU_OS) n->sram_ofmap_writes += m->rows + m->cols;
  n->energy_pj[TPU_ENERGY_MAC] += (double)macs * pj_mac(m, i->src.dtype);
  return t;
}

static double op_cost(const tpu_machine *m, int fn) {
  if (ix_info[fn].traits[0] == 'E') return m->cost_transcendental;
  return fn == IX_DIV || fn == IX_REM || fn == IX_SQRT ? m->cost_div : m->cost_simple;
}

/* Elements that lie apart along the last axis cannot be taken as a row. */
static bool apart(const tpu_operand *o, int last) {
  return (o->space == TPU_UB || o->space == TPU_ACC) && (o->stride[last] > 1 || o->stride[last] < 0);
}

/* Elements that pass the vector unit, with what its tiles hold besides; *turned: rows do not start where tiles do. */
static double passing(const tpu_machine *m, const tpu_inst *i, bool *turned) {
  int64_t elements = tpu_elements(i->extent), tile = m->tile_rows * m->tile_cols;
  int axis[2] = {-1, -1}; /* the last two that are not of one element */
  for (int d = 3, k = 0; d >= 0 && k < 2; d--)
    if (i->extent[d] > 1) axis[k++] = d;
  if (!tile || axis[0] < 0) return (double)elements;
  if (axis[1] < 0) return (double)((elements + tile - 1) / tile * tile); /* a run */
  const tpu_operand *o[4] = {&i->dst, &i->src, &i->b, &i->c};
  bool three = i->op == TPU_VECTOR || i->op == TPU_ACT;
  for (int k = 0; k < (three ? 4 : 2); k++) {
    if ((o[k]->space != TPU_UB && o[k]->space != TPU_ACC) || o[k]->stride[axis[0]] == 0) continue;
    for (int d = 0; d < axis[0]; d++) *turned |= i->extent[d] > 1 && o[k]->stride[d] % m->tile_cols != 0;
  }
  int64_t n = i->extent[axis[0]], rows = i->extent[axis[1]], outer = elements / (n * rows);
  return (double)(outer * ((rows + m->tile_rows - 1) / m->tile_rows) * ((n + m->tile_cols - 1) / m->tile_cols) * tile);
}

static cost vector_cost(const tpu_machine *m, const tpu_inst *i, tpu_counts *n) {
  int64_t elements = tpu_elements(i->extent);
  n->vector_elements += elements;
  n->energy_pj[TPU_ENERGY_VECTOR] += (double)elements * m->pj_vector_op;
  int last = 3;
  count_on_chip(n, &i->dst, i->extent, true);
  count_on_chip(n, &i->src, i->extent, false);
  count_on_chip(n, &i->mask, i->extent, false);
  if (i->op == TPU_GATHER || i->op == TPU_SCATTER) count_on_chip(n, &i->index, i->extent, false);
  else if (i->op != TPU_POOL) { /* there a window lies in their place */
    count_on_chip(n, &i->b, i->extent, false);
    count_on_chip(n, &i->c, i->extent, false);
  }
  if (!elements) return (cost){0};
  if (i->op == TPU_POOL) return (cost){.occupy = (int64_t)ceil(m->vector_overhead + (double)elements * i->win.kd * i->win.kh * i->win.kw / (double)m->act_lanes)};
  double per = m->cost_simple, lanes = (double)m->lanes, extra = m->vector_overhead;
  if (i->op == TPU_GATHER || i->op == TPU_SCATTER) per = m->cost_gather;
  else if (i->op == TPU_ACT) lanes = (double)m->act_lanes;
  else per = op_cost(m, i->fn);
  while (last > 0 && i->extent[last] == 1) last--;
  bool indexed = i->op == TPU_GATHER || i->op == TPU_SCATTER, turned = false;
  double pass = indexed ? (double)elements : passing(m, i, &turned);
  if (!indexed && (turned || apart(&i->dst, last) || apart(&i->src, last) || apart(&i->b, last))) per *= m->cost_strided;
  if (ir_dtype_bytes((tn_dtype)i->dst.dtype) == 8) per *= 2;
  if (i->extent[last] > 1 && i->dst.stride[last] == 0) extra += per * log2(lanes); /* across the lanes */
  return (cost){.occupy = (int64_t)ceil(extra + pass * per / lanes)};
}

static cost cost_of(tpu_core *c, const tpu_inst *i, tpu_counts *n) {
  const tpu_sim *s = c->sim;
  cost k = {0};
  switch (tpu_ops[i->op].unit) {
  case TPU_UNIT_HOST: case TPU_UNIT_LOAD: case TPU_UNIT_STORE: k = dma_cost(s->m, i, n); break;
  case TPU_UNIT_WEIGHTS: k = weights_cost(s, i, n); break;
  case TPU_UNIT_MATRIX: k = matmul_cost(s, i, n); break;
  case TPU_UNIT_VECTOR: k = vector_cost(s->m, i, n); break;
  default: return k; /* sync */
  }
  if (s->scalesim && i->op != TPU_MATMUL) k.occupy = k.reads = k.writes = 0;
  return k;
}

/* ---- channels ---- */

/* When a transfer that may begin at `ready` ends; it occupies its channels until then. */
static int64_t transfer(tpu_core *c, int unit, int64_t ready, const cost *k, int64_t *start) {
  tpu_sim *s = c->sim;
  bool host = unit == TPU_UNIT_HOST && s->host_bytes_per_cycle > 0;
  int64_t end = ready;
  *start = INT64_MAX;
  for (int side = 0; side < 2; side++) {
    int64_t bytes = side ? k->writes : k->reads;
    if (!bytes) continue;
    int ch = s->channel_of[unit];
    if (s->m->channels == 2) ch = side;
    int64_t *channel = host ? &s->host_free : &s->channel_free[ch];
    double rate = host ? s->host_bytes_per_cycle : s->bytes_per_cycle[ch];
    int64_t from = *channel > ready ? *channel : ready;
    *channel = from + (int64_t)ceil((double)bytes / rate);
    if (from < *start) *start = from;
    if (*channel > end) end = *channel;
  }
  return end;
}

/* ---- instructions ---- */

typedef struct times { int64_t start, end, done; } times; /* end: the unit is free again */

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

static times time_transfer(tpu_core *c, int unit, int64_t ready, const cost *k) {
  const tpu_machine *m = c->sim->m;
  if (!k->reads && !k->writes) return (times){ready, ready + k->occupy, ready + k->occupy};
  bool host = unit == TPU_UNIT_HOST && c->sim->host_bytes_per_cycle > 0;
  int64_t start, end = transfer(c, unit, ready, k, &start);
  return (times){start, end, end + (int64_t)ceil(host ? m->host_latency : m->dram_latency)};
}

static tpu_tile *tile_at(tpu_core *c, int64_t number) { return &c->tiles[number & (c->tile_cap - 1)]; }

static bool fifo_ready(tpu_core *c, int op, const tpu_inst *i) {
  if (op == TPU_WEIGHTS) return c->made - c->taken < c->sim->m->fifo_depth;
  return op != TPU_MATMUL || !(i->flags & TPU_SWAP) || c->taken < c->made;
}

/* The tile that a product will use is as large as it says. */
static void must_fit(tpu_core *c, const tpu_inst *i, int64_t number) {
  const tpu_tile *t = i->flags & TPU_SWAP ? tile_at(c, c->taken) : &c->active;
  if (!t->k) tpu_fault(c, i, number, "there is no tile in the array");
  if (t->k != i->win.k_count || t->n != i->extent[3])
    tpu_fault(c, i, number, "the resident tile is %lld x %lld, the product wants %d x %d", (long long)t->k, (long long)t->n, i->win.k_count, i->extent[3]);
  bool bytes = t->dtype == TN_I8 || t->dtype == TN_U8, rows = i->src.dtype == TN_I8 || i->src.dtype == TN_U8;
  if (bytes != rows || (!bytes && t->dtype != i->src.dtype))
    tpu_fault(c, i, number, "the resident tile is %s, the rows are %s", ir_dtype_name((tn_dtype)t->dtype), ir_dtype_name((tn_dtype)i->src.dtype));
}

/* Of whom an instruction waited longest. */
static account blamed(const int64_t *cause, const tpu_pending *p) {
  int64_t by[TPU_UNITS];
  memcpy(by, cause, sizeof by);
  if (p->held_by != TPU_UNIT_MATRIX && p->issued > by[p->held_by]) by[p->held_by] = p->issued; /* the sequencer came late, for its sake */
  cause = by;
  int64_t raw = most(cause[TPU_UNIT_VECTOR], cause[TPU_UNIT_MATRIX]), input = most(cause[TPU_UNIT_LOAD], cause[TPU_UNIT_HOST]);
  int64_t other = most(most(cause[TPU_UNIT_STORE], cause[TPU_UNIT_WEIGHTS]), most(cause[TPU_UNIT_SEQ], p->held_by == TPU_UNIT_MATRIX ? p->issued : 0));
  return other >= raw && other >= input ? OTHER_STALL : raw >= input ? RAW_STALL : INPUT_STALL;
}

/* A product: first the next tile, if it asks for one; then the rows. Says on whose account the array waited. */
static times time_matmul(tpu_core *c, const tpu_pending *p, int64_t ready, const cost *k, const int64_t *cause, tpu_counts *n) {
  const tpu_sim *s = c->sim;
  const tpu_machine *m = s->m;
  int64_t start = ready, arrival = 0, shifted = 0, held = 0;
  account blame = OTHER_STALL;
  bool on_chip = false;
  must_fit(c, p->inst, p->number);
  if (p->inst->flags & TPU_SWAP) {
    tpu_tile *t = tile_at(c, c->taken);
    int64_t shift = m->dataflow == TPU_OS ? 0 : s->scalesim ? m->rows : (m->rows + m->shift_rows - 1) / m->shift_rows;
    arrival = t->arrival;
    held = t->held;
    blame = (account)t->blame;
    on_chip = t->on_chip;
    /* nothing overlaps in SCALE-Sim: the tile goes straight into the array that has become free */
    shifted = t->popped = most(arrival, s->scalesim ? ready : c->shadow_free) + shift;
    start = most(start, shifted);
    c->shadow_free = start;
    n->tiles++;
    n->energy_pj[TPU_ENERGY_SHIFT] += (double)(t->k * t->n) * (double)ir_dtype_bytes((tn_dtype)t->dtype) * m->pj_shift_byte;
  }
  int tag = p->tag;
  account_until(c, held < start ? held : start, blame, tag);
  account_until(c, arrival < start ? arrival : start, on_chip ? RAW_STALL : WEIGHT_STALL, tag);
  account_until(c, shifted < start ? shifted : start, WEIGHT_SHIFT, tag);
  account_until(c, start, blamed(cause, p), tag);
  account_until(c, start + k->occupy, ACTIVE, tag);
  int64_t end = start + k->occupy;
  return (times){start, end, s->scalesim ? end : end + m->rows + m->cols - 1};
}

static void made_tile(tpu_core *c, const tpu_inst *i, int64_t arrival, int64_t index, int64_t held, account blame) {
  tpu_tile *t = tile_at(c, c->made++);
  t->k = (int64_t)i->extent[0] * i->extent[1] * i->extent[2];
  t->n = i->extent[3];
  t->dtype = i->src.dtype;
  t->on_chip = i->src.space == TPU_UB;
  t->arrival = arrival;
  t->held = held;
  t->blame = blame;
  t->weights_index = index;
  t->popped = 0;
}

/* When an instruction may start for the FIFO's sake; whoever takes a tile knows that it was read. */
static int64_t fifo_time(tpu_core *c, const tpu_inst *i, tpu_clock *clock) {
  int64_t depth = c->sim->m->fifo_depth;
  if (i->op == TPU_WEIGHTS && c->made >= depth) return tile_at(c, c->made - depth)->popped; /* what the two touch is apart */
  if (i->op == TPU_MATMUL && i->flags & TPU_SWAP) {
    const tpu_tile *t = tile_at(c, c->taken);
    tpu_join(clock, &tpu_done_of(c, TPU_UNIT_WEIGHTS, t->weights_index)->clock);
    clock->known[TPU_UNIT_WEIGHTS] = most(clock->known[TPU_UNIT_WEIGHTS], t->weights_index + 1);
  }
  return 0;
}

static void run_values(tpu_core *c, const tpu_pending *p) {
  const tpu_inst *i = p->inst;
  switch (i->op) {
  case TPU_MATMUL: tpu_matmul(c, i, p->number); break;
  case TPU_POOL: tpu_pool(c, i, p->number); break;
  case TPU_ACT: case TPU_VECTOR: tpu_vector(c, i, p->number); break;
  case TPU_GATHER: case TPU_SCATTER: tpu_gather(c, i, p->number); break;
  case TPU_SYNC: break;
  default: tpu_execute(c, i, p->number);
  }
}

static void tell(tpu_core *c, int unit, const tpu_pending *p, const times *t, const cost *k) {
  if (!c->sim->o.event) return;
  tpu_event e = {c->id, (tpu_unit)unit, p->inst, p->number, p->tag, p->issued, t->start, t->end, t->done, k->reads + k->writes, (int)(c->made - c->taken)};
  c->sim->o.event(c->sim->o.user, &e);
}

bool tpu_time_head(tpu_core *c, int unit) {
  tpu_sim *s = c->sim;
  tpu_unit_state *u = &c->unit[unit];
  int64_t index = u->timed;
  const tpu_pending *p = &u->queue[index & (s->queue_depth - 1)];
  const tpu_inst *i = p->inst;
  if (!fifo_ready(c, i->op, i) || !tpu_waits_known(c, p)) return false;
  int64_t cause[TPU_UNITS] = {0};
  tpu_clock clock = u->clock;
  if (s->checks) tpu_join(&clock, &p->clock);
  tpu_semaphore *sems[2] = {i->wait[0] ? &c->sem[i->wait[0]] : NULL, i->wait[1] ? &c->sem[i->wait[1]] : NULL};
  bool shares = s->p->ncores > 1 && !s->scalesim && unit != TPU_UNIT_MATRIX && unit != TPU_UNIT_VECTOR && i->op != TPU_SYNC;
  int64_t head[2] = {sems[0] ? sems[0]->head : 0, sems[1] ? sems[1]->head : 0};
  int64_t held = most(p->issued, tpu_take_waits(c, p, unit, &clock, cause)), free = most(u->free, fifo_time(c, i, &clock));
  int64_t ready = most(held, free);
  if (shares && !c->granted) { /* other cores may come first: ask again later, semaphores untouched */
    for (int k = 0; k < 2; k++)
      if (sems[k]) sems[k]->head = head[k];
    c->asking = true;
    c->ask_time = ready;
    return false;
  }
  c->granted = false;
  u->clock = clock;
  u->clock.known[unit] = index; /* in order: all before has taken effect */
  tpu_counts *n = &c->tags[p->tag].counts;
  cost k = cost_of(c, i, n);
  times t = i->op == TPU_MATMUL ? time_matmul(c, p, ready, &k, cause, n)
            : k.moves          ? time_transfer(c, unit, ready, &k)
                               : (times){ready, ready + k.occupy, ready + k.occupy};
  if (unit == TPU_UNIT_HOST && s->host_bytes_per_cycle > 0) n->host_bytes += k.reads + k.writes;
  if (t.done < u->last_done) t.done = u->last_done; /* signals are never out of order */
  if (s->checks) tpu_check_order(c, unit, p, index);
  tell(c, unit, p, &t, &k);
  if (i->op == TPU_WEIGHTS) made_tile(c, i, t.done, index, held > free ? held : 0, blamed(cause, p));
  if (i->op == TPU_MATMUL && i->flags & TPU_SWAP) tpu_take_tile(c);
  if (s->values) run_values(c, p);
  n->instructions++;
  n->busy[unit] += t.end - t.start;
  u->free = most(u->free, t.end);
  u->last_done = t.done;
  u->start[index & (s->queue_depth - 1)] = t.start;
  *tpu_done_of(c, unit, index) = (tpu_done){t.done, u->clock};
  tpu_tag_result *g = &c->tags[p->tag];
  if (!g->last || t.start < g->first) g->first = t.start;
  g->last = most(g->last, t.done);
  if (p->tag == c->tag) c->tag_last = most(c->tag_last, t.done);
  c->end = most(c->end, t.done);
  u->timed++;
  c->npending--;
  if (i->signal[0] || i->signal[1]) {
    clock = u->clock;
    clock.known[unit] = index + 1;
    tpu_send_signals(c, i, p->number, unit, t.done, &clock);
  }
  return true;
}
