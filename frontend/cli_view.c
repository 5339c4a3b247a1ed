/* cli_view.c — tenon view: one HTML page, without any outside resource, that shows a compiled model:
 * its calls as a graph, what each pass did, each kernel's loops and schedule, and times. */
#include "frontend/cli.h"
#include <string.h>

/* ---- HTML ---- */

static void escaped(ir_text *t, const char *s, size_t n) {
  for (size_t i = 0; i < n && s[i]; i++) {
    switch (s[i]) {
    case '<': ir_put(t, "&lt;"); break;
    case '>': ir_put(t, "&gt;"); break;
    case '&': ir_put(t, "&amp;"); break;
    case '"': ir_put(t, "&quot;"); break;
    default: ir_put_bytes(t, s + i, 1);
    }
  }
}
static void html(ir_text *t, const char *s) { escaped(t, s, strlen(s)); }

static const char style[] =
    "body{font:14px/1.45 system-ui,sans-serif;margin:0;color:#1d2733;background:#fff}"
    "header{background:#1d2733;color:#fff;padding:14px 24px}header h1{font-size:19px;margin:0 0 2px}header p{margin:0;color:#b9c4cf}"
    "main{padding:8px 24px 60px}h2{font-size:16px;border-bottom:1px solid #d5dbe1;padding-bottom:3px;margin-top:26px}"
    "table{border-collapse:collapse}td,th{padding:3px 12px 3px 0;text-align:left;vertical-align:top}td.n,th.n{text-align:right}"
    "th{font-weight:600;color:#51606f}tr.row:hover{background:#f2f5f8}"
    "pre{background:#f6f8fa;border:1px solid #e1e6eb;padding:8px 10px;overflow:auto;max-height:520px;font:12px/1.4 ui-monospace,monospace;margin:4px 0 10px}"
    "details{margin:3px 0}summary{cursor:pointer}summary:hover{color:#0b62b8}.k{border-left:3px solid #d5dbe1;padding-left:10px;margin:10px 0}"
    ".k:target{border-color:#e07b00;background:#fffaf2}.dim{color:#6b7a88}.bar{display:inline-block;height:9px;background:#e07b00;vertical-align:middle}"
    ".pane{border:1px solid #d5dbe1;overflow:auto;max-height:640px;background:#fbfcfd}"
    "svg text{font:11px ui-monospace,monospace}svg a:hover rect{stroke:#e07b00;stroke-width:2}.cols{display:grid;grid-template-columns:1fr 1fr;gap:12px}"
    "@media(max-width:1000px){.cols{grid-template-columns:1fr}}";

/* ---- the graph of calls ---- */

enum { BOX_W = 190, BOX_H = 38, GAP_X = 18, GAP_Y = 26 };

typedef struct box {
  int layer, column;
  double want; /* where its operands are */
  int nfrom;
  int *from;
} box;

static bool same_place(const ir_slot *a, const ir_slot *b) {
  if (a->kind != b->kind) return false;
  if (a->kind == IR_SLOT_ARENA || a->kind == IR_SLOT_STATE) return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
  return a->index == b->index;
}

static bool writes(const ir_program *p, const ir_inst *i, int arg) {
  if (i->kind == IR_COPY_SLOT) return arg == 0;
  return i->kind == IR_CALL && (p->kernels[i->kernel].kernel->bufs[arg]->access & IR_OUT);
}

/* Boxes of the run section; an operand comes from the last instruction that wrote its memory. */
static box *layout(tn_ctx *ctx, const ir_program *p, int *layers, int *columns) {
  box *b = IR_NEW_ARRAY(ctx, box, p->nrun + 1);
  int *width = IR_NEW_ARRAY(ctx, int, p->nrun + 2);
  *layers = *columns = 0;
  for (int i = 0; i < p->nrun; i++) {
    const ir_inst *c = &p->run[i];
    for (int a = 0; a < c->nargs; a++) {
      if (writes(p, c, a)) continue;
      const ir_slot *s = &p->slots[c->args[a]];
      for (int k = i; k-- > 0;) {
        bool found = false;
        for (int x = 0; x < p->run[k].nargs && !found; x++)
          found = writes(p, &p->run[k], x) && same_place(&p->slots[p->run[k].args[x]], s);
        if (!found) continue;
        IR_PUSH(ctx, b[i].from, b[i].nfrom, k);
        if (b[k].layer + 1 > b[i].layer) b[i].layer = b[k].layer + 1;
        break;
      }
    }
    for (int k = 0; k < b[i].nfrom; k++) b[i].want += (double)b[b[i].from[k]].column / b[i].nfrom;
    b[i].column = width[b[i].layer]++;
    if (b[i].layer + 1 > *layers) *layers = b[i].layer + 1;
  }
  /* within a layer, in the order of where the operands stand */
  for (int l = 0; l < *layers; l++) {
    int n = 0;
    int *of = IR_NEW_ARRAY(ctx, int, width[l] + 1);
    for (int i = 0; i < p->nrun; i++)
      if (b[i].layer == l) {
        double w = 0;
        for (int k = 0; k < b[i].nfrom; k++) w += (double)b[b[i].from[k]].column / b[i].nfrom;
        b[i].want = w;
        int at = n++;
        for (; at > 0 && b[of[at - 1]].want > w; at--) of[at] = of[at - 1];
        of[at] = i;
      }
    for (int k = 0; k < n; k++) {
      int least = k ? b[of[k - 1]].column + 1 : 0, want = (int)b[of[k]].want;
      b[of[k]].column = want > least ? want : least;
      if (b[of[k]].column + 1 > *columns) *columns = b[of[k]].column + 1;
    }
  }
  return b;
}

/* A colour by what the kernel is; darker where it takes longer. */
static const char *colour(const lw_problem *p) {
  switch (p->kind) {
  case LW_CONTRACTION: return "#dbeafe";
  case LW_ACCUMULATE: return "#dcf5e3";
  case LW_POINTWISE: return "#fdf1d8";
  default: return "#eceff2";
  }
}

static void put_graph(ir_text *t, cli *c, const cli_model *m, const cli_kernel_facts *facts, const rt_profile_row *times, int ntimes, double total) {
  const ir_program *p = m->program;
  int layers, columns;
  box *b = layout(c->ctx, p, &layers, &columns);
  int w = columns * (BOX_W + GAP_X) + GAP_X, h = layers * (BOX_H + GAP_Y) + GAP_Y;
  ir_put(t, "<div class=pane><svg width=%d height=%d xmlns='http://www.w3.org/2000/svg'>\n", w, h);
  for (int i = 0; i < p->nrun; i++)
    for (int k = 0; k < b[i].nfrom; k++) {
      const box *from = &b[b[i].from[k]];
      double x0 = GAP_X + from->column * (BOX_W + GAP_X) + BOX_W / 2.0, y0 = GAP_Y + from->layer * (BOX_H + GAP_Y) + BOX_H;
      double x1 = GAP_X + b[i].column * (BOX_W + GAP_X) + BOX_W / 2.0, y1 = GAP_Y + b[i].layer * (BOX_H + GAP_Y);
      bool far = b[i].layer > from->layer + 1; /* passes boxes: beside them */
      if (far) x0 += BOX_W * 0.4;
      ir_put(t, "<path d='M%.0f %.0f C%.0f %.0f %.0f %.0f %.0f %.0f' fill=none stroke='%s'/>\n", x0, y0, far ? x0 + BOX_W * 0.25 : x0, y0 + GAP_Y * (far ? 2 : 0.6),
             far ? x0 + BOX_W * 0.25 : x1, y1 - GAP_Y * (far ? 2 : 0.6), far ? x1 + BOX_W * 0.3 : x1, y1, far ? "#c3a6d8" : "#93a1ae");
    }
  int call = 0;
  for (int i = 0; i < p->nrun; i++) {
    const ir_inst *in = &p->run[i];
    int x = GAP_X + b[i].column * (BOX_W + GAP_X), y = GAP_Y + b[i].layer * (BOX_H + GAP_Y);
    if (in->kind == IR_CALL) ir_put(t, "<a href='#k%d'>", in->kernel);
    ir_put(t, "<rect x=%d y=%d width=%d height=%d rx=4 fill='%s' stroke='#8795a3'/>", x, y, BOX_W, BOX_H, in->kind == IR_CALL ? colour(&facts[in->kernel].problem) : "#fff");
    double took = in->kind == IR_CALL && call < ntimes ? times[call].median : 0;
    if (took > 0 && total > 0) ir_put(t, "<rect x=%d y=%d width=%.1f height=4 fill='#e07b00'/>", x, y + BOX_H - 4, took / total * BOX_W);
    ir_put(t, "<title>");
    html(t, in->name ? in->name : "copy");
    if (took > 0) ir_put(t, "\n%s", cli_time(c, took));
    ir_put(t, "</title><text x=%d y=%d>", x + 6, y + 15);
    const char *name = in->name ? in->name : "copy";
    size_t n = strlen(name);
    escaped(t, n > 27 ? name + n - 27 : name, 27); /* the end of a path says most */
    ir_put(t, "</text><text x=%d y=%d fill='#6b7a88'>", x + 6, y + 29);
    html(t, in->kind == IR_CALL ? p->kernels[in->kernel].kernel->name : "copy");
    if (took > 0) ir_put(t, " %s", cli_time(c, took));
    ir_put(t, "</text>%s\n", in->kind == IR_CALL ? "</a>" : "");
    call += in->kind == IR_CALL;
  }
  ir_put(t, "</svg></div>\n");
}

/* ---- the rest of the page ---- */

static void put_code(ir_text *t, const char *title, const char *code, bool open) {
  ir_put(t, "<details%s><summary>%s</summary><pre>", open ? " open" : "", title);
  html(t, code);
  ir_put(t, "</pre></details>\n");
}

static void put_passes(ir_text *t, cli *c, const cli_model *m) {
  ir_put(t, "<h2>Passes</h2><table><tr><th>pass<th class=n>nodes<th class=n>time<th>graph afterwards\n");
  const char *last = NULL;
  for (int i = 0; i < m->npasses; i++) {
    const cli_pass *p = &m->passes[i];
    ir_put(t, "<tr class=row><td>%s<td class=n>%d<td class=n>%s<td>", p->name, p->nodes, cli_time(c, p->seconds));
    if (!p->text || (last && strcmp(last, p->text) == 0)) ir_put(t, "<span class=dim>unchanged</span>");
    else put_code(t, "text", p->text, false);
    if (p->text) last = p->text;
  }
  ir_put(t, "</table>\n");
}

static void put_kernels(ir_text *t, cli *c, const cli_model *m, const cli_kernel_facts *facts, const rt_profile_row *times, int ntimes, double total) {
  const ir_program *p = m->program;
  double *sum = IR_NEW_ARRAY(c->ctx, double, p->nkernels + 1);
  int call = 0;
  for (int i = 0; i < p->nrun; i++)
    if (p->run[i].kind == IR_CALL && call < ntimes) sum[p->run[i].kernel] += times[call++].median;
  ir_put(t, "<h2>Kernels</h2><table><tr><th>kernel<th class=n>calls<th>problem<th>limit%s\n", ntimes ? "<th class=n>time<th class=n>GFLOP/s<th>" : "");
  for (int i = 0; i < p->nkernels; i++) {
    if (!facts[i].ncalls) continue;
    ir_put(t, "<tr class=row><td><a href='#k%d'>%s</a><td class=n>%d<td>", i, p->kernels[i].kernel->name, facts[i].ncalls);
    html(t, lw_problem_print(c->ctx, &facts[i].problem));
    ir_put(t, "<td>%s", facts[i].limit);
    if (ntimes)
      ir_put(t, "<td class=n>%s<td class=n>%.1f<td><span class=bar style='width:%.0fpx'></span>", cli_time(c, sum[i]),
             sum[i] > 0 ? facts[i].problem.flops * facts[i].ncalls / sum[i] * 1e-9 : 0, total > 0 ? 160 * sum[i] / total : 0);
    ir_put(t, "\n");
  }
  ir_put(t, "</table>\n");
  for (int i = 0; i < p->nkernels; i++) {
    const ir_program_kernel *k = &p->kernels[i];
    ir_put(t, "<div class=k id=k%d><b>%s</b> <span class=dim>", i, k->kernel->name);
    html(t, lw_problem_print(c->ctx, &facts[i].problem));
    ir_put(t, "; %s moved at least; limit: %s</span><br>\n", cli_bytes(c, facts[i].problem.bytes), facts[i].limit);
    for (int a = 0; a < facts[i].ncalls; a++) {
      ir_put(t, "%s", a ? ", " : "nodes: ");
      html(t, p->run[facts[i].calls[a]].name);
    }
    if (facts[i].npack) ir_put(t, "%s%d calls when packing", facts[i].ncalls ? "; " : "", facts[i].npack);
    ir_put(t, "\n<div class=cols><div>");
    put_code(t, "schedule", *k->schedule ? k->schedule : "(none)", false);
    if (*facts[i].refused) put_code(t, "steps left out", facts[i].refused, false);
    put_code(t, "loops", ir_kernel_print(c->ctx, k->kernel), false);
    ir_put(t, "</div><div>");
    if (k->lowered != k->kernel) put_code(t, "scheduled loops", ir_kernel_print(c->ctx, k->lowered), false);
    ir_put(t, "</div></div></div>\n");
  }
}

void cli_view(cli *c, int argc, char **argv) {
  tn_ctx *ctx = c->ctx;
  const char *out = NULL;
  bool no_times = false;
  cli_list inputs = {0};
  cli_option own[] = {
      {"-o", CLI_TEXT, &out, "FILE", "the page"},
      {"--no-times", CLI_FLAG, &no_times, NULL, "nothing is run"},
      {"--input", CLI_TEXTS, &inputs, "NAME=FILE", "an input; those not given are random"},
  };
  if (!cli_parse(c, argc, argv, IR_COUNT(own), own, true, 1, 1, NULL)) return;
  if (!out) ir_fail(ctx, TN_EUSAGE, "tenon view: -o FILE is missing");
  cli_model *m = cli_load(c, c->args[0]);
  m->keep_texts = true;
  cli_feed(c, m, &inputs);
  cli_lower(c, m);
  cli_need_one_size(c, m);
  cli_kernel_facts *facts = cli_facts(c, m);
  rt_profile_row *rows = NULL;
  int nrows = 0;
  double total = 0;
  if (!no_times && cg_target_runs_here(ctx, m->target, NULL) && c->engine == CLI_JIT) {
    cli_fill(c, m);
    cli_start(c, m);
    nrows = rt_profile_rows(ctx, cli_profile_run(c, m, 5), &rows);
    for (int i = 0; i < nrows; i++) total += rows[i].median;
    cli_stop(c, m);
  }
  double flops, estimate = cli_estimate(c, m, &flops);
  ir_text page = {.ctx = ctx}, *t = &page;
  ir_put(t, "<!doctype html><html lang=en><meta charset=utf-8><title>");
  html(t, m->path);
  ir_put(t, "</title><style>%s</style>\n<header><h1>", style);
  html(t, m->path);
  ir_put(t, "</h1><p>%d kernels, %d calls; weights %s, arena %s; %.3g GFLOP; %s%s on %s</p></header><main>\n", m->program->nkernels, m->program->nrun,
         cli_bytes(c, (double)m->program->weights_bytes), cli_bytes(c, (double)m->program->arena_bytes), flops / 1e9, nrows ? "" : "roughly ",
         cli_time(c, nrows ? total : estimate), m->target->name);
  ir_put(t, "<h2>Calls of a run</h2><p class=dim>A box is a kernel call with the nodes it covers: blue contractions, green reductions, yellow "
            "elementwise, grey others; the orange bar is its share of the time. Click leads to the kernel.</p>\n");
  put_graph(t, c, m, facts, rows, nrows, total);
  put_kernels(t, c, m, facts, rows, nrows, total);
  put_passes(t, c, m);
  ir_put(t, "<h2>Program</h2>");
  put_code(t, "text (tenon reads it as a model)", ir_program_print(ctx, m->program), false);
  ir_put(t, "</main></html>\n");
  fe_write_file(ctx, out, t->s, t->n);
  if (c->json) {
    cli_json j;
    cj_begin(&j, ctx);
    cj_text(&j, "page", out);
    cj_int(&j, "bytes", (int64_t)t->n);
    cj_end(&j, c);
  } else fprintf(c->out, "%s: %s\n", out, cli_bytes(c, (double)t->n));
}
