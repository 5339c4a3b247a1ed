/* cli_sim_rows.c — layers as a table, as CSV and as JSON. */
#include "frontend/cli_sim.h"
#include <stddef.h>
#include <string.h>

double sim_seconds(const sim *s, int64_t cycles) { return (double)cycles / (s->machine->clock_mhz * 1e6); }
double sim_energy_uj(const tpu_counts *c) {
  double pj = 0;
  for (int e = 0; e < TPU_ENERGY_KINDS; e++) pj += c->energy_pj[e];
  return pj * 1e-6;
}
double sim_peak(const sim *s) {
  double row = sim_row_cycles(s->machine, s->dtype);
  return (double)(s->machine->rows * tpu_tile_cols(s->machine)) * s->cores * s->machine->clock_mhz * 1e6 / (row > 0 ? row : 1);
}
double sim_bandwidth(const sim *s) { return s->bandwidth; }
double sim_intensity(const sim_row *r) {
  int64_t bytes = r->counts->dram_read + r->counts->dram_written;
  return bytes ? 2.0 * (double)r->macs / (double)bytes : 0;
}

const char *sim_short(tn_ctx *ctx, double v) {
  static const char *const unit[] = {"", " k", " M", " G", " T", " P"};
  int u = 0;
  for (; u < 5 && (v >= 1000 || v <= -1000); u++) v /= 1000;
  return ir_format(ctx, u ? "%.3g%s" : "%.0f%s", v, unit[u]);
}

/* Integer columns of CSV and JSON behind the fixed ones. */
static const struct {
  const char *name;
  size_t at; /* in tpu_counts */
} columns[] = {
    {"active", offsetof(tpu_counts, cycles.active)},
    {"weight_stall", offsetof(tpu_counts, cycles.weight_stall)},
    {"weight_shift", offsetof(tpu_counts, cycles.weight_shift)},
    {"raw_stall", offsetof(tpu_counts, cycles.raw_stall)},
    {"input_stall", offsetof(tpu_counts, cycles.input_stall)},
    {"other_stall", offsetof(tpu_counts, cycles.other_stall)},
    {"instructions", offsetof(tpu_counts, instructions)},
    {"tiles", offsetof(tpu_counts, tiles)},
    {"macs", offsetof(tpu_counts, macs)},
    {"dram_read_bytes", offsetof(tpu_counts, dram_read)},
    {"dram_written_bytes", offsetof(tpu_counts, dram_written)},
    {"host_bytes", offsetof(tpu_counts, host_bytes)},
    {"ub_read_bytes", offsetof(tpu_counts, ub_read)},
    {"ub_written_bytes", offsetof(tpu_counts, ub_written)},
    {"acc_read_bytes", offsetof(tpu_counts, acc_read)},
    {"acc_written_bytes", offsetof(tpu_counts, acc_written)},
    {"vector_elements", offsetof(tpu_counts, vector_elements)},
    {"sram_ifmap_reads", offsetof(tpu_counts, sram_ifmap_reads)},
    {"sram_filter_reads", offsetof(tpu_counts, sram_filter_reads)},
    {"sram_ofmap_writes", offsetof(tpu_counts, sram_ofmap_writes)},
};
static int64_t value(const tpu_counts *c, int i) {
  int64_t v;
  memcpy(&v, (const char *)c + columns[i].at, sizeof v);
  return v;
}

/* A cell of a CSV: quoted where commas, quotes or line ends would end it. */
static void cell(ir_text *t, const char *s) {
  if (!strpbrk(s, ",\"\r\n")) {
    ir_put(t, "%s", s);
    return;
  }
  ir_put(t, "\"");
  for (; *s; s++) ir_put(t, *s == '"' ? "\"\"" : "%c", *s);
  ir_put(t, "\"");
}

const char *sim_csv(const sim *s) {
  ir_text t = {.ctx = s->c->ctx};
  ir_put(&t, "layer,M,N,K,total_cycles,utilization,microseconds,energy_uj");
  for (int i = 0; i < IR_COUNT(columns); i++) ir_put(&t, ",%s", columns[i].name);
  ir_put(&t, "\n");
  for (int k = 0; k < s->nrows; k++) {
    const sim_row *r = &s->rows[k];
    cell(&t, r->name);
    ir_put(&t, ",%lld,%lld,%lld,%lld,%.10g,%.9g,%.9g", (long long)r->M, (long long)r->N, (long long)r->K, (long long)r->cycles, 100 * r->utilization,
           1e6 * sim_seconds(s, r->cycles), sim_energy_uj(r->counts));
    for (int i = 0; i < IR_COUNT(columns); i++) ir_put(&t, ",%lld", (long long)value(r->counts, i));
    ir_put(&t, "\n");
  }
  return ir_text_str(&t);
}

static const char *share(tn_ctx *ctx, int64_t part, int64_t all) { return part ? ir_format(ctx, "%.1f", 100.0 * (double)part / (double)all) : "-"; }

void sim_table(const sim *s, int most) {
  tn_ctx *ctx = s->c->ctx;
  FILE *out = s->c->out;
  bool tpu = s->timing == TPU_TIMING_TPU;
  int wide = 5;
  for (int k = 0; k < s->nrows && k < most; k++) {
    int n = (int)strlen(s->rows[k].name);
    if (n > wide) wide = n < 32 ? n : 32;
  }
  fprintf(out, "%-*s %20s %12s %10s %7s", wide, "layer", "M x N x K", "cycles", "time", "util %");
  if (tpu) fprintf(out, " | %6s %6s %6s %6s %6s %6s | %9s %9s\n", "active", "weight", "shift", "raw", "input", "other", "DRAM", "energy");
  else fprintf(out, " | %8s %10s %10s %10s %9s\n", "folds", "ifmap rd", "filter rd", "ofmap wr", "energy");
  for (int k = 0; k < s->nrows && k < most; k++) {
    const sim_row *r = &s->rows[k];
    const tpu_cycles *y = &r->counts->cycles;
    int n = (int)strlen(r->name);
    const char *dims = r->K ? ir_format(ctx, "%lldx%lldx%lld", (long long)r->M, (long long)r->N, (long long)r->K) : "-";
    fprintf(out, "%-*s %20s %12lld %10s %7.2f", wide, n > wide ? r->name + n - wide : r->name, dims, (long long)r->cycles, cli_time(s->c, sim_seconds(s, r->cycles)),
            100 * r->utilization);
    if (tpu)
      fprintf(out, " | %6s %6s %6s %6s %6s %6s | %9s %9s\n", share(ctx, y->active, y->total), share(ctx, y->weight_stall, y->total), share(ctx, y->weight_shift, y->total),
              share(ctx, y->raw_stall, y->total), share(ctx, y->input_stall, y->total), share(ctx, y->other_stall, y->total),
              cli_bytes(s->c, (double)(r->counts->dram_read + r->counts->dram_written)), ir_format(ctx, "%.4g uJ", sim_energy_uj(r->counts)));
    else
      fprintf(out, " | %8s %10s %10s %10s %9s\n", sim_short(ctx, (double)r->counts->tiles), sim_short(ctx, (double)r->counts->sram_ifmap_reads),
              sim_short(ctx, (double)r->counts->sram_filter_reads), sim_short(ctx, (double)r->counts->sram_ofmap_writes), ir_format(ctx, "%.4g uJ", sim_energy_uj(r->counts)));
  }
  if (s->nrows > most) fprintf(out, "... and %d more (--csv FILE holds all)\n", s->nrows - most);
  fprintf(out, "%d layers on %s, --timing %s: %lld cycles, %s at %.6g MHz, utilization %.2f %%, %s multiply-adds, DRAM %s, %.4g mJ\n", s->nrows, s->machine->name,
          tpu ? "tpu" : "scalesim", (long long)s->cycles, cli_time(s->c, sim_seconds(s, s->cycles)), s->machine->clock_mhz, 100 * s->utilization,
          sim_short(ctx, s->useful), cli_bytes(s->c, (double)(s->all.dram_read + s->all.dram_written)), 1e-3 * sim_energy_uj(&s->all));
  if (tpu) {
    const tpu_cycles *y = &s->all.cycles;
    fprintf(out, "the array, %% of all cycles: active %s, weight stall %s, weight shift %s, raw stall %s, input stall %s, other %s\n", share(ctx, y->active, y->total),
            share(ctx, y->weight_stall, y->total), share(ctx, y->weight_shift, y->total), share(ctx, y->raw_stall, y->total), share(ctx, y->input_stall, y->total),
            share(ctx, y->other_stall, y->total));
  }
}

void sim_json(const sim *s, cli_json *j) {
  cj_text(j, "input", s->path);
  cj_text(j, "machine", s->machine->name);
  cj_text(j, "timing", s->timing == TPU_TIMING_TPU ? "tpu" : "scalesim");
  cj_bool(j, "faults", s->faults);
  cj_text(j, "dtype", ir_dtype_name(s->dtype));
  cj_int(j, "cores", s->cores);
  cj_int(j, "total_cycles", s->cycles);
  cj_real(j, "seconds", sim_seconds(s, s->cycles));
  cj_real(j, "utilization", 100 * s->utilization);
  cj_real(j, "energy_uj", sim_energy_uj(&s->all));
  for (int i = 0; i < IR_COUNT(columns); i++) cj_int(j, columns[i].name, value(&s->all, i));
  cj_real(j, "compile_s", s->compile_s);
  cj_real(j, "simulate_s", s->simulate_s);
  cj_open(j, "layers", '[');
  for (int k = 0; k < s->nrows; k++) {
    const sim_row *r = &s->rows[k];
    cj_open(j, NULL, '{');
    cj_text(j, "layer", r->name);
    cj_int(j, "M", r->M);
    cj_int(j, "N", r->N);
    cj_int(j, "K", r->K);
    cj_int(j, "total_cycles", r->cycles);
    cj_real(j, "utilization", 100 * r->utilization);
    cj_real(j, "microseconds", 1e6 * sim_seconds(s, r->cycles));
    cj_real(j, "energy_uj", sim_energy_uj(r->counts));
    for (int i = 0; i < IR_COUNT(columns); i++) cj_int(j, columns[i].name, value(r->counts, i));
    cj_close(j, '}');
  }
  cj_close(j, ']');
}
