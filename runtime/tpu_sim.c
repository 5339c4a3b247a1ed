/* tpu_sim.c — the sequencer of each core, cores taking turns, results.
 *
 * A core hands instructions to the queues in program order; the head of a queue is timed and carried out
 * as soon as all that it waits for is known. What cannot go on any more is a deadlock. Several
 * cores run one after another up to their next transfer; the earliest of these goes first.
 */
#include "ir/interp.h"
#include "runtime/tpu_internal.h"
#include <string.h>

/* ---- deadlocks ---- */

static void put_reason(ir_text *t, tpu_core *c, const tpu_inst *i, const int64_t *after) {
  for (int k = 0; k < 2; k++)
    if (i->wait[k] && c->sem[i->wait[k]].tail == c->sem[i->wait[k]].head) ir_put(t, " waits for semaphore %d", i->wait[k]);
  for (int w = 0; w < TPU_UNITS; w++)
    if (after && after[w] >= c->unit[w].timed) ir_put(t, " waits for %s", tpu_unit_names[w]);
  if (i->op == TPU_WEIGHTS && c->made - c->taken >= c->sim->m->fifo_depth) ir_put(t, " waits for a place in the weight FIFO");
  if (i->op == TPU_MATMUL && i->flags & TPU_SWAP && c->taken == c->made) ir_put(t, " waits for a weight tile");
}

static void IR_NORETURN deadlock(tpu_core *c, const char *sequencer) {
  ir_text t = {.ctx = c->sim->ctx};
  for (int u = 1; u < TPU_UNITS; u++) {
    const tpu_unit_state *s = &c->unit[u];
    if (s->handed == s->timed) continue;
    const tpu_pending *p = &s->queue[s->timed & (c->sim->queue_depth - 1)];
    ir_put(&t, "; %s: instruction %lld (%s)", tpu_unit_names[u], (long long)p->number, tpu_ops[p->inst->op].name);
    put_reason(&t, c, p->inst, p->waits ? p->after : NULL);
  }
  ir_fail(c->sim->ctx, TN_EINPUT, "core %d, instruction %lld: deadlock: %s%s", c->id, (long long)c->pc, sequencer, ir_text_str(&t));
}

/* ---- repeats that may be multiplied (SCALE-Sim's timing without values: every turn costs the same) ---- */

static bool turns_alike(const tpu_core *c, int64_t from, int64_t to) {
  if (!c->sim->scalesim || c->sim->values || c->npending || c->made != c->taken) return false;
  for (int64_t k = from; k < to; k++) {
    const tpu_inst *i = &c->text[k];
    if (i->op == TPU_TAG || i->op == TPU_JUMP || i->op == TPU_READ || i->op == TPU_HALT || i->op == TPU_BARRIER || (i->op == TPU_REPEAT && i->reg2)) return false;
    if (i->wait[0] || i->wait[1] || i->signal[0] || i->signal[1]) return false;
  }
  return true;
}

static void multiply_counts(tpu_counts *n, const tpu_counts *before, int64_t turns) {
  int64_t *a = (int64_t *)(void *)n;
  const int64_t *b = (const int64_t *)(const void *)before;
  for (size_t k = 0; k < offsetof(tpu_counts, energy_pj) / 8; k++) a[k] = b[k] + (a[k] - b[k]) * turns;
  for (int k = 0; k < TPU_ENERGY_KINDS; k++) n->energy_pj[k] = before->energy_pj[k] + (n->energy_pj[k] - before->energy_pj[k]) * (double)turns;
}

/* The first of `turns` turns is done: accounts for the others at once. */
static bool multiply_turns(tpu_core *c, const tpu_snapshot *s, int64_t turns) {
  if (c->npending || c->made != c->taken) return false;
  tpu_unit_state *array = &c->unit[TPU_UNIT_MATRIX];
  int64_t add;
  if (__builtin_mul_overflow(array->free - s->free, turns - 1, &add) || add > INT64_MAX / 4)
    ir_fail(c->sim->ctx, TN_ERESOURCE, "the program takes more than 2^61 cycles");
  multiply_counts(&c->tags[c->tag].counts, &s->counts, turns);
  array->free += add;
  array->last_done += add;
  c->cursor += add;
  c->end += add;
  c->tag_last += add;
  c->tags[c->tag].last += add;
  return true;
}

/* ---- the sequencer ---- */

static void enter_repeat(tpu_core *c, const tpu_inst *i) {
  int64_t turns = i->reg2 ? c->reg[i->reg2] : i->imm, from = c->pc + 1, to = from + i->span;
  if (turns <= 0) {
    c->pc = to;
    return;
  }
  c->loop[c->depth] = (tpu_loop){from, to, turns, turns};
  tpu_snapshot *s = &c->snapshot[c->depth++];
  s->usable = turns > 1 && turns_alike(c, from, to);
  if (s->usable) {
    s->free = c->unit[TPU_UNIT_MATRIX].free;
    s->counts = c->tags[c->tag].counts;
  }
  c->pc = from;
}

static void progress(tpu_core *c);

/* Ends of bodies at which the sequencer has arrived. */
static void turn_loops(tpu_core *c) {
  while (c->depth && c->pc == c->loop[c->depth - 1].end) {
    tpu_loop *l = &c->loop[c->depth - 1];
    const tpu_snapshot *s = &c->snapshot[c->depth - 1];
    if (s->usable && l->left == l->count) {
      progress(c);
      if (multiply_turns(c, s, l->count)) l->left = 1;
    }
    if (--l->left > 0) {
      c->pc = l->start;
      return;
    }
    c->depth--;
  }
}

static void resolve(const tpu_core *c, const tpu_inst *i, tpu_operand *o) {
  o->addr = (int64_t)((uint64_t)o->addr + (uint64_t)c->reg[o->reg] + (uint64_t)c->reg[o->reg2]);
  o->reg = o->reg2 = 0;
  if (o->space <= TPU_ACC && (o->addr > TPU_ADDRESS_MAX || o->addr < -TPU_ADDRESS_MAX))
    tpu_fault(c, i, c->pc, "%s byte %lld is outside", tpu_space_names[o->space], (long long)o->addr);
}

static int64_t read_register(tpu_core *c, const tpu_inst *i) {
  tpu_sim *s = c->sim;
  if (!s->values) { /* 1 imm times, then 0, and again */
    if (!c->read_turn) c->read_turn = IR_NEW_ARRAY(s->ctx, int64_t, c->n);
    int64_t *turn = &c->read_turn[c->pc];
    bool more = *turn < i->imm;
    *turn = more ? *turn + 1 : 0;
    return more;
  }
  tn_dtype t = (tn_dtype)i->src.dtype;
  int64_t n = (int64_t)ir_dtype_bytes(t);
  tpu_inst at = *i;
  resolve(c, i, &at.src);
  int64_t addr = at.src.addr;
  if (addr % n) tpu_fault(c, i, c->pc, "src lies at %lld, which is no multiple of %lld", (long long)addr, (long long)n);
  if (s->checks) {
    tpu_pending p = {.inst = &at, .number = c->pc};
    c->unit[TPU_UNIT_SEQ].clock = c->clock;
    tpu_check_order(c, TPU_UNIT_SEQ, &p, c->unit[TPU_UNIT_SEQ].timed - 1);
  }
  return ir_scalar_load(t, tpu_touch(c, i, c->pc, at.src.space, addr, n, false)).i;
}

static void wait_for_all(tpu_core *c) {
  for (int u = 1; u < TPU_UNITS; u++) {
    const tpu_unit_state *s = &c->unit[u];
    if (s->last_done > c->time) c->time = s->last_done, c->held_by = u;
    c->clock.known[u] = s->handed;
  }
}

/* What `i`, handed out now, waits for. */
static void set_waits(const tpu_core *c, const tpu_inst *i, tpu_pending *p) {
  p->waits = tpu_has_waits(i);
  if (!p->waits) return;
  for (int w = 0; w < TPU_UNITS; w++) p->after[w] = i->after[w] && c->unit[w].handed >= i->after[w] ? c->unit[w].handed - i->after[w] : -1;
}

/* The sequencer's own waits. False: for something that is not known yet. */
static bool sequencer_waits(tpu_core *c, const tpu_inst *i) {
  if (!tpu_has_waits(i)) return true;
  tpu_pending p = {.inst = i, .number = c->pc};
  set_waits(c, i, &p);
  if (!tpu_waits_known(c, &p)) return false;
  int64_t cause[TPU_UNITS] = {0}, waited = tpu_take_waits(c, &p, TPU_UNIT_SEQ, &c->clock, cause);
  if (waited > c->time) c->time = waited;
  return true;
}

/* An instruction of the sequencer. False: it waits for something that is not known yet. */
static bool step_control(tpu_core *c, const tpu_inst *i) {
  bool all = i->op == TPU_FENCE || i->op == TPU_BARRIER;
  if ((all && c->npending) || !sequencer_waits(c, i)) return false;
  if (!c->sim->scalesim) c->time += c->sim->m->issue_cycles;
  c->tags[c->tag].counts.instructions++;
  if (all) wait_for_all(c);
  if (c->time > c->end) c->end = c->time;
  if (c->time > c->tag_last) c->tag_last = c->time;
  c->unit[TPU_UNIT_SEQ].timed++;
  tpu_send_signals(c, i, c->pc, TPU_UNIT_SEQ, c->time, &c->clock);
  switch (i->op) {
  case TPU_HALT: c->halted = true; return true;
  case TPU_BARRIER: c->at_barrier = true; break;
  case TPU_TAG: tpu_switch_tag(c, (int)i->imm); break;
  case TPU_CONFIG: c->reg[i->reg] = i->imm; break;
  case TPU_STEP:
    c->reg[i->reg] = (int64_t)((uint64_t)c->reg[i->reg] + (i->reg2 ? (uint64_t)c->reg[i->reg2] * (uint64_t)i->imm : (uint64_t)i->imm));
    break;
  case TPU_READ: c->reg[i->reg] = read_register(c, i); break;
  case TPU_REPEAT: enter_repeat(c, i); return true;
  case TPU_JUMP:
    c->pc += i->reg2 && c->reg[i->reg2] ? 1 : i->span;
    return true;
  default: break;
  }
  c->pc++;
  return true;
}

/* The instruction with its registers added; `copy` is used only when there are some. */
static const tpu_inst *resolved(const tpu_core *c, const tpu_inst *i, tpu_inst *copy) {
  tpu_fields f = tpu_ops[i->op].fields;
  bool three = f == TPU_FIELDS_CHAIN || f == TPU_FIELDS_VECTOR || f == TPU_FIELDS_INDEXED; /* b, c or index: else another part lies there */
  int used = i->dst.reg | i->dst.reg2 | i->src.reg | i->src.reg2 | i->mask.reg | i->mask.reg2;
  if (three) used |= i->b.reg | i->b.reg2 | i->c.reg | i->c.reg2;
  if (!used) return i;
  *copy = *i;
  resolve(c, i, &copy->dst);
  resolve(c, i, &copy->src);
  resolve(c, i, &copy->mask);
  if (three) resolve(c, i, &copy->b), resolve(c, i, &copy->c);
  return copy;
}

/* Hands an instruction to its queue. False: the queue is full. */
static bool hand_out(tpu_core *c, const tpu_inst *i, int unit) {
  tpu_sim *s = c->sim;
  tpu_unit_state *u = &c->unit[unit];
  int64_t depth = s->m->queue_depth;
  if (u->handed - u->timed >= depth) return false;
  if (u->handed >= depth) {
    int64_t left = u->start[(u->handed - depth) & (s->queue_depth - 1)];
    if (left > c->time) c->time = left, c->held_by = unit;
  }
  tpu_pending *p = &u->queue[u->handed & (s->queue_depth - 1)];
  p->inst = resolved(c, i, &p->copy);
  p->number = c->pc;
  p->issued = c->time;
  p->tag = c->tag;
  p->held_by = c->held_by;
  set_waits(c, i, p);
  if (s->checks) p->clock = c->clock;
  p->clock.known[TPU_UNIT_SEQ] = c->unit[TPU_UNIT_SEQ].timed;
  u->handed++;
  c->npending++;
  if (!s->scalesim) c->time += s->m->issue_cycles;
  c->pc++;
  return true;
}

static bool step(tpu_core *c) {
  tpu_sim *s = c->sim;
  const tpu_inst *i = &c->text[c->pc];
  if (++s->instructions > s->o.max_instructions)
    ir_fail(s->ctx, TN_ERESOURCE, "core %d, instruction %lld: gives up after %lld instructions", c->id, (long long)c->pc, (long long)s->o.max_instructions);
  int unit = i->op == TPU_SYNC ? i->unit : (int)tpu_ops[i->op].unit;
  if (unit == TPU_UNIT_SEQ ? !step_control(c, i) : !hand_out(c, i, unit)) return false;
  turn_loops(c);
  return true;
}

/* Times all heads of queues that can be, until nothing changes or a transfer has to wait for its turn. */
static void progress(tpu_core *c) {
  for (bool some = true; some && c->npending;) {
    some = false;
    for (int u = 1; u < TPU_UNITS; u++)
      while (c->unit[u].timed < c->unit[u].handed) {
        bool timed = tpu_time_head(c, u);
        if (c->asking) return;
        if (!timed) break;
        some = true;
      }
  }
}

static bool finished(const tpu_core *c) { return (c->halted || c->pc >= c->n) && !c->npending; }

/* Runs until the end, a barrier, or a transfer for which other cores must be asked. */
static void run_core(tpu_core *c) {
  for (;;) {
    progress(c);
    if (c->asking || c->at_barrier || finished(c)) return;
    if (c->halted || c->pc >= c->n) deadlock(c, "the program has ended, yet");
    if (!step(c)) deadlock(c, c->text[c->pc].op == TPU_FENCE || c->text[c->pc].op == TPU_BARRIER ? "a fence that is never reached" : "the sequencer waits");
  }
}

static void close_core(tpu_core *c) {
  if (c->made > c->taken) {
    const tpu_inst *last = &c->text[c->n - 1];
    tpu_fault(c, last, c->n - 1, "the program ends and %lld weight tiles were never used", (long long)(c->made - c->taken));
  }
  tpu_close_account(c);
}

/* All cores that are not done wait at a barrier: they go on together. */
static void pass_barrier(tpu_sim *s) {
  int64_t latest = 0;
  for (int k = 0; k < s->p->ncores; k++) {
    tpu_core *c = &s->cores[k];
    if (finished(c) && !c->at_barrier) deadlock(c, "another core waits at a barrier that this one does not reach");
    if (c->time > latest) latest = c->time;
  }
  for (int k = 0; k < s->p->ncores; k++) {
    tpu_core *c = &s->cores[k];
    c->time = latest;
    c->end = c->end > latest ? c->end : latest;
    c->at_barrier = false;
    c->nshared = 0;
  }
}

static void run_all(tpu_sim *s) {
  for (;;) {
    tpu_core *next = NULL;
    int waiting = 0;
    for (int k = 0; k < s->p->ncores; k++) {
      tpu_core *c = &s->cores[k];
      if (!c->asking && !c->at_barrier && !finished(c)) run_core(c);
      waiting += c->at_barrier;
      if (c->asking && (!next || c->ask_time < next->ask_time)) next = c;
    }
    if (next) {
      next->asking = false;
      next->granted = true;
      run_core(next);
    } else if (waiting) pass_barrier(s);
    else return;
  }
}

/* ---- beginning and end ---- */

static int64_t power_of_two(int64_t n) {
  int64_t p = 4;
  while (p < n) p *= 2;
  return p;
}

static int64_t longest_look_back(const tpu_program *p) {
  int64_t most = 0;
  for (int c = 0; c < p->ncores; c++)
    for (int64_t k = 0; k < p->core[c].n; k++)
      for (int u = 1; u < TPU_UNITS; u++)
        if (p->core[c].insts[k].after[u] > most) most = p->core[c].insts[k].after[u];
  return most;
}

static void open_core(tpu_sim *s, int id) {
  tn_ctx *ctx = s->ctx;
  const tpu_machine *m = s->m;
  tpu_core *c = &s->cores[id];
  c->sim = s;
  c->id = id;
  c->text = s->p->core[id].insts;
  c->n = s->p->core[id].n;
  c->time = c->end = s->scalesim ? 0 : (int64_t)(m->launch_cycles + (s->p->ncores > 1 ? m->join_cycles : 0));
  for (int u = 0; u < TPU_UNITS; u++) {
    tpu_unit_state *t = &c->unit[u];
    if (u == TPU_UNIT_SEQ) continue;
    t->queue = IR_NEW_ARRAY(ctx, tpu_pending, s->queue_depth);
    t->start = IR_NEW_ARRAY(ctx, int64_t, s->queue_depth);
    t->done = IR_NEW_ARRAY(ctx, tpu_done, s->history);
  }
  for (int k = 0; k < TPU_SEMAPHORES; k++) c->sem[k].waiter = c->sem[k].signaller = -1;
  if (s->values) {
    tpu_mem_open(&c->mem[TPU_UB], ctx, TPU_UB, m->ub_bytes, s->checks);
    tpu_mem_open(&c->mem[TPU_ACC], ctx, TPU_ACC, m->acc_bytes, s->checks);
  }
  c->tile_cap = power_of_two(m->fifo_depth + 2);
  c->tiles = IR_NEW_ARRAY(ctx, tpu_tile, c->tile_cap);
  c->visit = IR_NEW_ARRAY(ctx, tpu_visit, TPU_VISITS);
  c->tags = IR_NEW_ARRAY(ctx, tpu_tag_result, s->p->ntags);
  tpu_close_account(c); /* the start */
}

static void open_channels(tpu_sim *s) {
  const tpu_machine *m = s->m;
  double sum = 0, all = tpu_image_bytes_per_cycle(m, s->p->dram_bytes);
  for (int k = 0; k < m->channels; k++) sum += m->dram_share[k];
  for (int k = 0; k < m->channels; k++) s->bytes_per_cycle[k] = all * m->dram_share[k] / sum;
  s->host_bytes_per_cycle = m->host_gbps * 1e3 / m->clock_mhz;
  if (m->channels == 3) {
    s->channel_of[TPU_UNIT_STORE] = 1;
    s->channel_of[TPU_UNIT_WEIGHTS] = 2;
  }
}

static void release(void *arg) {
  tpu_sim *s = arg;
  tpu_mem *dram = &s->dram;
  ir_raw_free(s->ctx, dram->bytes);
  ir_raw_free(s->ctx, dram->undefined);
  for (int k = 0; s->cores && k < s->p->ncores; k++) {
    tpu_core *c = &s->cores[k];
    for (int sp = TPU_UB; sp <= TPU_ACC; sp++) {
      ir_raw_free(s->ctx, c->mem[sp].bytes);
      ir_raw_free(s->ctx, c->mem[sp].undefined);
    }
    for (int64_t t = 0; c->tiles && t < c->tile_cap; t++) ir_raw_free(s->ctx, c->tiles[t].values);
    ir_raw_free(s->ctx, c->active.values);
    ir_raw_free(s->ctx, c->scratch);
  }
}

static int64_t state_bytes_before(const tpu_program *p, const tpu_segment *s) {
  int64_t n = 0;
  for (int k = 0; k < p->nsegments; k++)
    if (p->segments[k].kind == TPU_SEG_STATE && p->segments[k].addr < s->addr) n += p->segments[k].bytes;
  return n;
}

static void fill_dram(tpu_sim *s, const void *const *in, const void *state) {
  tpu_mem *m = &s->dram;
  const tpu_program *p = s->p;
  *m = (tpu_mem){.ctx = s->ctx, .space = TPU_DRAM, .limit = p->dram_bytes, .size = p->dram_bytes};
  m->bytes = ir_raw_alloc(s->ctx, (size_t)p->dram_bytes + 64);
  s->constant = p->dram_bytes;
  if (s->checks) {
    m->undefined = ir_raw_alloc(s->ctx, (size_t)p->dram_bytes + 1);
    memset(m->undefined, 1, (size_t)p->dram_bytes);
  }
  for (int k = 0; k < p->nsegments; k++) {
    const tpu_segment *g = &p->segments[k];
    if (g->kind != TPU_SEG_INPUT && g->kind != TPU_SEG_WEIGHTS && g->addr < s->constant) s->constant = g->addr;
    if (g->kind == TPU_SEG_OUTPUT || g->kind == TPU_SEG_SCRATCH || !g->bytes) continue;
    const void *from = g->kind == TPU_SEG_INPUT ? in[g->index] : g->kind == TPU_SEG_WEIGHTS ? g->data : state;
    if (g->kind == TPU_SEG_STATE && state) from = (const char *)state + state_bytes_before(p, g);
    if (from) memcpy(m->bytes + g->addr, from, (size_t)g->bytes);
    else memset(m->bytes + g->addr, 0, (size_t)g->bytes);
    tpu_define(m, g->addr, g->bytes);
  }
}

static void take_outputs(tpu_sim *s, void *const *out, void *state) {
  const tpu_mem *m = &s->dram;
  for (int k = 0; k < s->p->nsegments; k++) {
    const tpu_segment *g = &s->p->segments[k];
    if (!g->bytes) continue;
    if (g->kind == TPU_SEG_STATE && state) memcpy((char *)state + state_bytes_before(s->p, g), m->bytes + g->addr, (size_t)g->bytes);
    if (g->kind != TPU_SEG_OUTPUT) continue;
    const uint8_t *bad = m->undefined ? memchr(m->undefined + g->addr, 1, (size_t)g->bytes) : NULL;
    if (bad) ir_fail(s->ctx, TN_EINPUT, "the program ends and byte %lld of output '%s' (dram byte %lld) was never written",
                     (long long)(bad - m->undefined - g->addr), g->name, (long long)(bad - m->undefined));
    memcpy(out[g->index], m->bytes + g->addr, (size_t)g->bytes);
  }
}

static void add_energy(const tpu_machine *m, tpu_counts *n) {
  n->energy_pj[TPU_ENERGY_UB] = (double)(n->ub_read + n->ub_written) * m->pj_ub_byte;
  n->energy_pj[TPU_ENERGY_ACC] = (double)(n->acc_read + n->acc_written) * m->pj_acc_byte;
  n->energy_pj[TPU_ENERGY_DRAM] = (double)(n->dram_read + n->dram_written) * m->pj_dram_byte;
}

/* a += b, but for the cycles of the array. */
static void add_counts(tpu_counts *a, const tpu_counts *b) {
  tpu_cycles cycles = a->cycles;
  int64_t *x = (int64_t *)(void *)a;
  const int64_t *y = (const int64_t *)(const void *)b;
  for (size_t k = 0; k < offsetof(tpu_counts, energy_pj) / 8; k++) x[k] += y[k];
  for (int k = 0; k < TPU_ENERGY_KINDS; k++) a->energy_pj[k] += b->energy_pj[k];
  a->cycles = cycles;
}

static void add_cycles(tpu_cycles *a, const tpu_cycles *b) {
  int64_t *x = (int64_t *)(void *)a;
  const int64_t *y = (const int64_t *)(const void *)b;
  for (size_t k = 0; k < sizeof *a / 8; k++) x[k] += y[k];
}

static tpu_result *sum_up(tpu_sim *s) {
  const tpu_machine *m = s->m;
  tpu_result *r = IR_NEW(s->ctx, tpu_result);
  r->timing = s->o.timing;
  r->ncores = s->p->ncores;
  r->ntags = s->p->ntags;
  r->tags = IR_NEW_ARRAY(s->ctx, tpu_tag_result, r->ntags);
  int slowest = 0;
  for (int k = 0; k < r->ncores; k++) {
    tpu_core *c = &s->cores[k];
    if (c->end > s->cores[slowest].end) slowest = k;
    for (int t = 0; t < r->ntags; t++) {
      tpu_counts *n = &c->tags[t].counts;
      add_energy(m, n);
      add_counts(&r->tags[t].counts, n);
      add_counts(&r->core[k], n);
      add_cycles(&r->core[k].cycles, &n->cycles);
    }
    r->core[k].energy_pj[TPU_ENERGY_STATIC] = m->static_watts * (double)c->end / m->clock_mhz * 1e6; /* W * us = 1e6 pJ */
    add_counts(&r->all, &r->core[k]);
  }
  const tpu_core *last = &s->cores[slowest];
  for (int t = 0; t < r->ntags; t++) {
    tpu_tag_result *g = &r->tags[t];
    g->counts.cycles = last->tags[t].counts.cycles;
    g->first = last->tags[t].first;
    g->last = last->tags[t].last;
    g->reported = g->counts.cycles.total - (s->scalesim && s->o.faults && g->counts.cycles.total > 0);
  }
  r->all.cycles = r->core[slowest].cycles;
  r->cycles = last->end;
  r->seconds = (double)r->cycles / (m->clock_mhz * 1e6);
  double places = (double)(m->rows * tpu_tile_cols(m) * r->ncores);
  r->utilization = r->cycles ? (double)r->all.macs / ((double)r->cycles * places) : 0;
  return r;
}

const tpu_result *tpu_simulate(tn_ctx *ctx, const tpu_machine *m, const tpu_program *p, const tpu_sim_options *o,
                               const void *const *in, void *const *out, void *state) {
  const char *why = tpu_program_check(ctx, m, p);
  if (why) ir_fail(ctx, TN_EINPUT, "the program does not fit %s: %s", m->name, why);
  tpu_sim *s = IR_NEW(ctx, tpu_sim);
  *s = (tpu_sim){.ctx = ctx, .m = m, .p = p};
  if (o) s->o = *o;
  if (!s->o.max_instructions) s->o.max_instructions = (int64_t)1 << 40;
  if (!s->o.max_work) s->o.max_work = (int64_t)1 << 60;
  s->scalesim = s->o.timing == TPU_TIMING_SCALESIM;
  s->values = !s->o.no_values;
  s->checks = s->values && !s->o.no_checks;
  s->queue_depth = power_of_two(m->queue_depth);
  s->history = power_of_two((longest_look_back(p) > m->fifo_depth ? longest_look_back(p) : m->fifo_depth) + m->queue_depth + 2);
  open_channels(s);
  ir_defer(ctx, release, s);
  if (s->values) fill_dram(s, in, state);
  s->cores = IR_NEW_ARRAY(ctx, tpu_core, p->ncores);
  for (int k = 0; k < p->ncores; k++) open_core(s, k);
  run_all(s);
  for (int k = 0; k < p->ncores; k++) close_core(&s->cores[k]);
  if (s->values) take_outputs(s, out, state);
  tpu_result *r = sum_up(s);
  ir_undefer(ctx, release, s);
  release(s);
  return r;
}
