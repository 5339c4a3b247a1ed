/* cli_sim_page.c — a simulated run as one HTML page without any outside resource: what it took, where the
 * cycles of the array went, the timeline, the roofline, the layers. The timeline is drawn by the page from
 * spans that were joined to what a screen can show; the whole of it is in the Chrome trace. */
#include "frontend/cli_sim.h"
#include <math.h>
#include <string.h>

static void html(ir_text *t, const char *s) {
  for (; *s; s++) {
    if (*s == '<') ir_put(t, "&lt;");
    else if (*s == '>') ir_put(t, "&gt;");
    else if (*s == '&') ir_put(t, "&amp;");
    else if (*s == '"') ir_put(t, "&quot;");
    else ir_put_bytes(t, s, 1);
  }
}

/* Where the cycles of the array go: name, colour class, member. */
typedef struct cause {
  const char *name, *klass, *about;
  int64_t (*of)(const tpu_cycles *y);
} cause;
static int64_t active(const tpu_cycles *y) { return y->active; }
static int64_t weight(const tpu_cycles *y) { return y->weight_stall; }
static int64_t shift(const tpu_cycles *y) { return y->weight_shift; }
static int64_t raw(const tpu_cycles *y) { return y->raw_stall; }
static int64_t input(const tpu_cycles *y) { return y->input_stall; }
static int64_t other(const tpu_cycles *y) { return y->other_stall; }
static const cause causes[] = {
    {"active", "c0", "rows are in the array", active},
    {"weight stall", "c1", "waits for a tile from the weight memory", weight},
    {"weight shift", "c2", "waits for a tile that is being shifted in", shift},
    {"raw stall", "c3", "waits for the vector unit or for results of its own", raw},
    {"input stall", "c4", "waits for a load", input},
    {"other", "c5", "nothing to multiply: vector work, stores, the sequencer", other},
};

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c1e21;--soft:#636a73;--line:#dde1e6;--paper:#fff;--panel:#f6f8fa;--accent:#1f6feb;"
    "--c0:#2b8a3e;--c1:#c93c37;--c2:#e8890c;--c3:#8250df;--c4:#0e8a9c;--c5:#aab2bb}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#9aa2ab;--line:#343a41;--paper:#16181b;--panel:#1e2125;--accent:#6aa6ff;"
    "--c0:#57ab5a;--c1:#ff7b72;--c2:#f0a84a;--c3:#b392f0;--c4:#56c2d0;--c5:#5c656f}}"
    "*{box-sizing:border-box}body{font:14px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1320px;margin:1.6em auto;padding:0 1.2em 4em}"
    "h1{font-size:1.45em;margin:0}h2{font-size:1.1em;margin:2em 0 .4em}p{color:var(--soft);margin:.2em 0 .8em;max-width:70em}"
    ".facts{display:flex;flex-wrap:wrap;gap:.8em;margin:1.1em 0}.facts div{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:.5em .9em;min-width:9em}"
    ".facts b{display:block;font-size:1.25em;font-variant-numeric:tabular-nums}.facts span{color:var(--soft);font-size:12px}"
    ".stack{display:flex;height:26px;border-radius:4px;overflow:hidden;border:1px solid var(--line)}.stack i{display:block;height:100%}"
    ".key{display:flex;flex-wrap:wrap;gap:.3em 1.3em;margin:.5em 0;font-size:13px}.key i{display:inline-block;width:11px;height:11px;border-radius:2px;margin-right:.45em}"
    ".c0{background:var(--c0)}.c1{background:var(--c1)}.c2{background:var(--c2)}.c3{background:var(--c3)}.c4{background:var(--c4)}.c5{background:var(--c5)}"
    "#time{position:relative;border:1px solid var(--line);border-radius:6px;background:var(--panel);overflow:hidden}canvas{display:block;width:100%;touch-action:none;cursor:grab}"
    "#tip{position:absolute;display:none;pointer-events:none;background:var(--paper);border:1px solid var(--line);border-radius:5px;padding:.3em .6em;font-size:12px;white-space:pre;box-shadow:0 2px 8px #0003}"
    "button{font:inherit;font-size:12px;color:var(--ink);background:var(--panel);border:1px solid var(--line);border-radius:5px;padding:.15em .8em;margin:0 .4em .5em 0;cursor:pointer}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:12.5px;font-variant-numeric:tabular-nums;white-space:nowrap}th,td{text-align:right;padding:.2em .5em;border-bottom:1px solid var(--line)}"
    "th{color:var(--soft);font-weight:600;cursor:pointer;position:sticky;top:0;background:var(--paper)}th:first-child,td:first-child{text-align:left;padding-left:0}"
    "td:first-child{max-width:24em;overflow:hidden;text-overflow:ellipsis}tbody tr:hover{background:var(--panel)}td .stack{width:110px;height:11px;border:0}"
    "svg text{font:11px system-ui,sans-serif;fill:var(--soft)}.grid{stroke:var(--line)}.roof{stroke:var(--ink);fill:none;stroke-width:1.6}.dot{fill:var(--accent);fill-opacity:.65;stroke:var(--paper)}"
    ".dot:hover{fill-opacity:1;stroke:var(--ink)}.roofname{fill:var(--ink)!important}";

/* ---- roofline (Williams, Waterman, Patterson, CACM 2009) ---- */

enum { W = 860, H = 380, LEFT = 78, RIGHT = 20, TOP = 16, BOTTOM = 42 };

typedef struct axes {
  double x0, x1, y0, y1; /* powers of ten at the ends */
} axes;
static double px(const axes *a, double x) { return LEFT + (W - LEFT - RIGHT) * (log10(x) - a->x0) / (a->x1 - a->x0); }
static double py(const axes *a, double y) { return H - BOTTOM - (H - TOP - BOTTOM) * (log10(y) - a->y0) / (a->y1 - a->y0); }

static double reached(const sim *s, const sim_row *r) { return 2.0 * (double)r->macs / sim_seconds(s, r->cycles > 0 ? r->cycles : 1); }
static bool plotted(const sim_row *r) { return r->macs > 0 && sim_intensity(r) > 0; }

static void grid(ir_text *t, tn_ctx *ctx, const axes *a) {
  for (double e = a->x0; e <= a->x1 + 1e-9; e++)
    ir_put(t, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/><text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", px(a, pow(10, e)), px(a, pow(10, e)), TOP,
           H - BOTTOM, px(a, pow(10, e)), H - BOTTOM + 16, e < 0 ? ir_format(ctx, "%g", pow(10, e)) : sim_short(ctx, pow(10, e)));
  for (double e = a->y0; e <= a->y1 + 1e-9; e++)
    ir_put(t, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%sop/s</text>\n", LEFT, W - RIGHT, py(a, pow(10, e)),
           py(a, pow(10, e)), LEFT - 6, py(a, pow(10, e)) + 4, sim_short(ctx, pow(10, e)));
  ir_put(t, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">operations per byte of DRAM traffic</text>\n", (LEFT + W - RIGHT) / 2, H - 8);
}

const char *sim_roofline(const sim *s, bool alone) {
  tn_ctx *ctx = s->c->ctx;
  ir_text text = {.ctx = ctx}, *t = &text;
  double peak = 2 * sim_peak(s), band = sim_bandwidth(s), ridge = peak / band, lo = ridge, hi = ridge, least = peak;
  for (int k = 0; k < s->nrows; k++) {
    if (!plotted(&s->rows[k])) continue;
    double x = sim_intensity(&s->rows[k]), y = reached(s, &s->rows[k]);
    lo = fmin(lo, x), hi = fmax(hi, x), least = fmin(least, y);
  }
  axes a = {floor(log10(lo) - 0.3), ceil(log10(hi) + 0.3), floor(log10(least)), ceil(log10(peak) + 0.1)};
  ir_put(t, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\">\n", W, H, W, H);
  if (alone)
    ir_put(t, "<style>text{font:11px sans-serif;fill:#636a73}.grid{stroke:#dde1e6}.roof{stroke:#1c1e21;fill:none;stroke-width:1.6}.dot{fill:#1f6feb;fill-opacity:.65;stroke:#fff}"
              ".roofname{fill:#1c1e21}</style><rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n", W, H);
  grid(t, ctx, &a);
  double left = pow(10, a.x0), right = pow(10, a.x1), from = fmax(left, pow(10, a.y0) / band);
  ir_put(t, "<path class=\"roof\" d=\"M%.1f %.1f L%.1f %.1f L%.1f %.1f\"/>\n", px(&a, from), py(&a, from * band), px(&a, ridge), py(&a, peak), px(&a, right), py(&a, peak));
  ir_put(t, "<text class=\"roofname\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%sop/s (%s)</text>\n", px(&a, right), py(&a, peak) - 6, sim_short(ctx, peak), ir_dtype_name(s->dtype));
  double mx = sqrt(from * ridge), angle = -atan2(py(&a, from * band) - py(&a, peak), px(&a, ridge) - px(&a, from)) * 180 / M_PI;
  ir_put(t, "<text class=\"roofname\" x=\"%.1f\" y=\"%.1f\" transform=\"rotate(%.1f %.1f %.1f)\" text-anchor=\"middle\">%.6g GB/s</text>\n", px(&a, mx), py(&a, mx * band) - 7, angle,
         px(&a, mx), py(&a, mx * band) - 7, band * 1e-9);
  for (int k = 0; k < s->nrows; k++) {
    const sim_row *r = &s->rows[k];
    if (!plotted(r)) continue;
    double weight = s->cycles > 0 ? (double)r->cycles / (double)s->cycles : 0;
    ir_put(t, "<circle class=\"dot\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"><title>", px(&a, sim_intensity(r)), py(&a, reached(s, r)), 3 + 12 * sqrt(weight));
    html(t, r->name);
    ir_put(t, "\n%lld x %lld x %lld\n%sop/s, %.3g op/byte\n%.1f %% of the time</title></circle>\n", (long long)r->M, (long long)r->N, (long long)r->K, sim_short(ctx, reached(s, r)),
           sim_intensity(r), 100 * weight);
  }
  ir_put(t, "</svg>\n");
  return ir_text_str(t);
}

/* ---- the parts of the page ---- */

static void fact(ir_text *t, const char *value, const char *what) { ir_put(t, "<div><b>%s</b><span>%s</span></div>\n", value, what); }

static void stack(ir_text *t, const tpu_cycles *y) {
  ir_put(t, "<div class=stack>");
  for (int i = 0; i < IR_COUNT(causes); i++)
    if (causes[i].of(y) > 0) ir_put(t, "<i class=%s style='width:%.3f%%' title='%s %.1f %%'></i>", causes[i].klass, 100.0 * (double)causes[i].of(y) / (double)y->total,
                                    causes[i].name, 100.0 * (double)causes[i].of(y) / (double)y->total);
  ir_put(t, "</div>");
}

static void where_cycles_went(ir_text *t, const sim *s) {
  const tpu_cycles *y = &s->all.cycles;
  if (s->timing != TPU_TIMING_TPU || y->total <= 0) return;
  ir_put(t, "<h2>Where the cycles of the array went</h2>\n");
  stack(t, y);
  ir_put(t, "<div class=key>");
  for (int i = 0; i < IR_COUNT(causes); i++)
    ir_put(t, "<span title='%s'><i class=%s></i>%s %.1f %%</span>", causes[i].about, causes[i].klass, causes[i].name, 100.0 * (double)causes[i].of(y) / (double)y->total);
  ir_put(t, "</div>\n");
}

enum { SPANS = 1500 }; /* of a track: more than a screen has columns */

static void timeline(ir_text *t, const sim *s) {
  const sim_recorder *r = s->recorder;
  ir_put(t, "<h2>Timeline</h2><p>Each unit's work; colours tell layers apart, paler is less busy. Wheel zooms, dragging moves. Work that lies closer together than "
            "a screen can show is joined%s.</p>\n<div><button id=all>whole run</button><button id=zin>zoom in</button><button id=zout>zoom out</button></div>"
            "<div id=time><canvas id=cv></canvas><div id=tip></div></div>\n<script>\nconst MHZ=%.9g,END=%lld,LAYERS=[",
         r->gap ? "; the trace holds more of it" : "", s->machine->clock_mhz, (long long)(s->cycles > 0 ? s->cycles : 1));
  for (int k = 0; k < s->nrows; k++) {
    ir_put(t, "%s[", k ? "," : "");
    ir_text name = {.ctx = s->c->ctx};
    cj_quote(&name, s->rows[k].name);
    for (const char *p = ir_text_str(&name); *p; p++) ir_put(t, *p == '<' ? "\\u003c" : "%c", *p); /* no </script> inside */
    ir_put(t, ",%lld,%lld]", (long long)s->rows[k].start, (long long)s->rows[k].end);
  }
  ir_put(t, "],\nTRACKS=[");
  bool first = true;
  for (int c = 0; c < s->cores; c++)
    for (int u = 0; u < TPU_UNITS; u++) {
      sim_span *spans;
      int n = sim_joined(r, c, u, SPANS, &spans);
      if (!n) continue;
      ir_put(t, "%s{name:\"%s%s\",s:[", first ? "" : ",\n", s->cores > 1 ? ir_format(s->c->ctx, "core %d ", c) : "", tpu_unit_names[u]);
      first = false;
      for (int i = 0; i < n; i++)
        ir_put(t, "%s[%lld,%lld,%d,%.2g,%lld,\"%s\",%lld]", i ? "," : "", (long long)spans[i].start, (long long)(spans[i].end - spans[i].start), spans[i].row,
               spans[i].end > spans[i].start ? (double)spans[i].busy / (double)(spans[i].end - spans[i].start) : 1, (long long)spans[i].count, tpu_ops[spans[i].op].name,
               (long long)spans[i].bytes);
      ir_put(t, "]}");
    }
  ir_put(t, "],\nWIDTH=%lld,GBPS=[", (long long)r->width);
  int bins = (int)(s->cycles / r->width) + 1, level = 0;
  if (bins > SIM_BINS) bins = SIM_BINS;
  for (int i = 0; i < bins; i++) ir_put(t, "%s%.4g", i ? "," : "", r->bytes[i] / (double)r->width * s->machine->clock_mhz * 1e-3);
  ir_put(t, "],FIFO=[");
  for (int i = 0; i < bins; i++) {
    if (r->fifo[i] >= 0) level = r->fifo[i];
    ir_put(t, "%s%d", i ? "," : "", level);
  }
  ir_put(t, "],CHIP=[");
  for (int i = 0; r->block && i < bins; i++) ir_put(t, "%s%.4g", i ? "," : "", r->in_use[i] / (double)r->width * 1e-6);
  ir_put(t, "],PEAK=%.6g,DEPTH=%lld;\n", s->bandwidth * 1e-9, (long long)s->machine->fifo_depth);
}

static const char script[] =
    "const cv=document.getElementById('cv'),g=cv.getContext('2d'),tip=document.getElementById('tip'),box=document.getElementById('time');"
    "let a=0,b=END,L=104,w=0;const css=n=>getComputedStyle(document.documentElement).getPropertyValue(n).trim();"
    "const hue=i=>i<0?0:(i*137.5)%360,dark=()=>matchMedia('(prefers-color-scheme:dark)').matches;"
    "const RH=24,CH=46,rows=[{name:'layers',k:'l'},...TRACKS.map(t=>({name:t.name,k:'t',s:t.s})),{name:'DRAM GB/s',k:'c',v:GBPS,m:Math.max(PEAK,...GBPS)},"
    "{name:'FIFO tiles',k:'c',v:FIFO,m:Math.max(DEPTH,1)}];if(CHIP.length)rows.push({name:'on-chip MB',k:'c',v:CHIP,m:Math.max(...CHIP)||1});let y=22;for(const r of rows){r.y=y;r.h=r.k=='c'?CH:RH;y+=r.h+5}const HH=y+4;"
    "const us=c=>{const t=c/MHZ;return t<1?(t*1e3).toFixed(1)+' ns':t<1e3?t.toFixed(2)+' \\u00b5s':(t/1e3).toFixed(3)+' ms'};"
    "const X=c=>L+(c-a)/(b-a)*(w-L-8);"
    "function fill(i,f){return i<0?`hsl(0 0% ${dark()?45:65}%/${.25+.75*f})`:`hsl(${hue(i)} 55% ${dark()?62:46}%/${.25+.75*f})`}"
    "function draw(){w=box.clientWidth;const d=devicePixelRatio||1;cv.width=w*d;cv.height=HH*d;cv.style.height=HH+'px';g.setTransform(d,0,0,d,0,0);g.clearRect(0,0,w,HH);"
    "g.font='11px system-ui,sans-serif';g.textBaseline='middle';const soft=css('--soft'),line=css('--line'),ink=css('--ink');"
    "let st=Math.pow(10,Math.floor(Math.log10((b-a)/MHZ/5)))*MHZ;while((b-a)/st>9)st*=(b-a)/st>18?5:2;g.textAlign='center';"
    "for(let c=Math.ceil(a/st)*st;c<=b;c+=st){g.fillStyle=line;g.fillRect(X(c),18,1,HH);g.fillStyle=soft;g.fillText(us(c),Math.min(Math.max(X(c),L+20),w-30),9)}"
    "for(const r of rows){g.textAlign='right';g.fillStyle=ink;g.fillText(r.name,L-8,r.y+r.h/2);g.save();g.beginPath();g.rect(L,0,w-L-8,HH);g.clip();"
    "if(r.k=='l')LAYERS.forEach((l,i)=>{if(l[2]<a||l[1]>b||l[2]<=l[1])return;const x=X(l[1]),e=Math.max(X(l[2])-x,.5);g.fillStyle=fill(i,.75);g.fillRect(x,r.y,e,r.h);"
    "if(e>46){g.fillStyle='#fff';g.textAlign='left';g.save();g.beginPath();g.rect(x,r.y,e-3,r.h);g.clip();g.fillText(l[0],Math.max(x,L)+4,r.y+r.h/2);g.restore()}});"
    "else if(r.k=='t')for(const s of r.s){if(s[0]+s[1]<a||s[0]>b)continue;const x=X(s[0]);g.fillStyle=fill(s[2],s[3]);g.fillRect(x,r.y,Math.max(X(s[0]+s[1])-x,.5),r.h)}"
    "else{g.fillStyle=css('--accent');g.globalAlpha=.55;r.v.forEach((v,i)=>{const x=X(i*WIDTH),e=X((i+1)*WIDTH);if(e<L||x>w)return;const h=v/r.m*(r.h-2);g.fillRect(x,r.y+r.h-h,Math.max(e-x,.6),h)});"
    "g.globalAlpha=1;g.fillStyle=line;g.fillRect(L,r.y+r.h,w,1);g.fillRect(L,r.y,w,1);g.fillStyle=soft;g.textAlign='right';g.fillText(r.m<10?r.m:r.m.toPrecision(4),w-12,r.y+8)}g.restore()}}"
    "function clampView(){const n=Math.min(Math.max(b-a,20),END);if(a<0)a=0;if(a+n>END)a=END-n;b=a+n}"
    "function zoom(f,at){const c=at==null?(a+b)/2:a+(at-L)/(w-L-8)*(b-a);a=c-(c-a)*f;b=c+(b-c)*f;if(b-a>END){a=0;b=END}clampView();draw()}"
    "cv.addEventListener('wheel',e=>{e.preventDefault();zoom(e.deltaY>0?1.25:.8,e.offsetX)},{passive:false});let drag=null;"
    "cv.addEventListener('pointerdown',e=>{drag=[e.offsetX,a,b];cv.setPointerCapture(e.pointerId)});cv.addEventListener('pointerup',()=>drag=null);"
    "cv.addEventListener('pointermove',e=>{if(drag){const m=(drag[0]-e.offsetX)/(w-L-8)*(drag[2]-drag[1]);a=drag[1]+m;b=drag[2]+m;clampView();draw()}"
    "const c=a+(e.offsetX-L)/(w-L-8)*(b-a),r=rows.find(r=>e.offsetY>=r.y&&e.offsetY<r.y+r.h);let s='';"
    "if(r&&r.k=='t'){let best;for(const p of r.s)if(p[0]<=c&&c<=p[0]+Math.max(p[1],(b-a)/w))best=p;"
    "if(best)s=`${best[5]}${best[4]>1?' x'+best[4]:''}\\n${best[2]>=0?LAYERS[best[2]][0]:''}\\n${us(best[0])} + ${us(best[1])} (${best[1]} cycles, ${Math.round(best[3]*100)} % busy)${best[6]?'\\n'+best[6]+' bytes':''}`}"
    "else if(r&&r.k=='l'){const p=LAYERS.find(l=>l[1]<=c&&c<l[2]);if(p)s=`${p[0]}\\n${us(p[1])} + ${us(p[2]-p[1])}`}"
    "else if(r&&r.v[Math.floor(c/WIDTH)]!=null)s=`${r.name}: ${r.v[Math.floor(c/WIDTH)]}`;"
    "tip.textContent=s;tip.style.display=s?'block':'none';tip.style.left=Math.min(e.offsetX+14,w-tip.offsetWidth-6)+'px';tip.style.top=Math.min(e.offsetY+14,HH-tip.offsetHeight-4)+'px'});"
    "cv.addEventListener('pointerleave',()=>tip.style.display='none');document.getElementById('all').onclick=()=>{a=0;b=END;draw()};"
    "document.getElementById('zin').onclick=()=>zoom(.5);document.getElementById('zout').onclick=()=>zoom(2);addEventListener('resize',draw);"
    "matchMedia('(prefers-color-scheme:dark)').addEventListener('change',draw);draw();\n";

static const char sorting[] =
    "document.querySelectorAll('th').forEach((h,i)=>h.onclick=()=>{const t=h.closest('table').tBodies[0],up=h.dataset.up!='1';h.dataset.up=up?1:0;"
    "const v=r=>{const c=r.cells[i];return c.dataset.v!=null?+c.dataset.v:c.textContent};"
    "[...t.rows].sort((p,q)=>{const x=v(p),y=v(q);return (x<y?-1:x>y?1:0)*(up?1:-1)}).forEach(r=>t.append(r))});\n";

static void number(ir_text *t, double v, const char *shown) { ir_put(t, "<td data-v=%.9g>%s", v, shown); }

static void layers(ir_text *t, const sim *s) {
  tn_ctx *ctx = s->c->ctx;
  bool tpu = s->timing == TPU_TIMING_TPU;
  ir_put(t, "<h2>Layers</h2><p>A click on a heading sorts.</p><div class=wide><table><thead><tr><th>layer<th>M<th>N<th>K<th>cycles<th>time<th>%% of all<th>utilization");
  if (tpu) ir_put(t, "<th>array<th>weight<th>shift<th>raw<th>input<th>other<th>DRAM<th>op/byte");
  else ir_put(t, "<th>folds<th>ifmap reads<th>filter reads<th>ofmap writes");
  ir_put(t, "<th>energy</tr></thead><tbody>\n");
  for (int k = 0; k < s->nrows; k++) {
    const sim_row *r = &s->rows[k];
    const tpu_cycles *y = &r->counts->cycles;
    ir_put(t, "<tr><td title=\"");
    html(t, r->name);
    ir_put(t, "\">");
    html(t, r->name);
    const int64_t dims[] = {r->M, r->N, r->K};
    for (int i = 0; i < 3; i++) number(t, (double)dims[i], r->K ? ir_format(ctx, "%lld", (long long)dims[i]) : "");
    number(t, (double)r->cycles, ir_format(ctx, "%lld", (long long)r->cycles));
    number(t, (double)r->cycles, cli_time(s->c, sim_seconds(s, r->cycles)));
    double part = s->cycles > 0 ? 100.0 * (double)r->cycles / (double)s->cycles : 0;
    number(t, part, ir_format(ctx, "%.1f", part));
    number(t, r->utilization, ir_format(ctx, "%.2f %%", 100 * r->utilization));
    if (tpu) {
      ir_put(t, "<td data-v=%lld>", (long long)y->active);
      if (y->total > 0) stack(t, y);
      for (int i = 1; i < IR_COUNT(causes); i++) {
        double v = y->total > 0 ? 100.0 * (double)causes[i].of(y) / (double)y->total : 0;
        number(t, v, v ? ir_format(ctx, "%.1f %%", v) : "");
      }
      double bytes = (double)(r->counts->dram_read + r->counts->dram_written);
      number(t, bytes, cli_bytes(s->c, bytes));
      number(t, sim_intensity(r), ir_format(ctx, "%.3g", sim_intensity(r)));
    } else {
      number(t, (double)r->counts->tiles, sim_short(ctx, (double)r->counts->tiles));
      number(t, (double)r->counts->sram_ifmap_reads, sim_short(ctx, (double)r->counts->sram_ifmap_reads));
      number(t, (double)r->counts->sram_filter_reads, sim_short(ctx, (double)r->counts->sram_filter_reads));
      number(t, (double)r->counts->sram_ofmap_writes, sim_short(ctx, (double)r->counts->sram_ofmap_writes));
    }
    number(t, sim_energy_uj(r->counts), ir_format(ctx, "%.4g &micro;J", sim_energy_uj(r->counts)));
    ir_put(t, "\n");
  }
  ir_put(t, "</tbody></table></div>\n");
}

const char *sim_page(const sim *s) {
  tn_ctx *ctx = s->c->ctx;
  const tpu_machine *m = s->machine;
  ir_text text = {.ctx = ctx}, *t = &text;
  ir_put(t, "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>");
  html(t, s->path);
  ir_put(t, "</title><style>%s</style></head><body>\n<h1>", style);
  html(t, s->path);
  ir_put(t, "</h1>\n<p>on <b>%s</b>: %lld core%s of %lld x %lld%s, %s stationary, %.6g MHz; --timing %s%s</p>\n<div class=facts>\n", m->name, (long long)s->cores, s->cores > 1 ? "s" : "",
         (long long)m->rows, (long long)m->cols, m->arrays > 1 ? ir_format(ctx, " x %lld arrays", (long long)m->arrays) : "",
         (const char *[]){"weights", "output", "input"}[m->dataflow], m->clock_mhz, s->timing == TPU_TIMING_TPU ? "tpu" : "scalesim",
         s->timing == TPU_TIMING_SCALESIM && s->faults ? ", with SCALE-Sim's known faults" : "");
  fact(t, cli_time(s->c, sim_seconds(s, s->cycles)), ir_format(ctx, "%lld cycles", (long long)s->cycles));
  fact(t, ir_format(ctx, "%.2f %%", 100 * s->utilization), "utilization of the array");
  fact(t, ir_format(ctx, "%sop/s", sim_short(ctx, s->cycles > 0 ? 2.0 * s->useful / sim_seconds(s, s->cycles) : 0)), ir_format(ctx, "of %sop/s, %s", sim_short(ctx, 2 * sim_peak(s)), ir_dtype_name(s->dtype)));
  fact(t, sim_short(ctx, s->useful), "multiply-adds");
  if (s->timing == TPU_TIMING_TPU) {
    fact(t, cli_bytes(s->c, (double)s->all.dram_read), "read from DRAM");
    fact(t, cli_bytes(s->c, (double)s->all.dram_written), "written to DRAM");
  }
  fact(t, ir_format(ctx, "%.4g mJ", 1e-3 * sim_energy_uj(&s->all)), "energy");
  ir_put(t, "</div>\n");
  where_cycles_went(t, s);
  if (s->recorder) {
    timeline(t, s);
    ir_put(t, "%s</script>\n", script);
  }
  bool any = false;
  for (int k = 0; k < s->nrows; k++) any |= plotted(&s->rows[k]);
  if (any && m->dram_gbps > 0 && s->timing == TPU_TIMING_TPU) {
    ir_put(t, "<h2>Roofline</h2><p>A dot is a layer, larger the more time it takes. On the slope the memory is the limit, under the flat part the arrays are.</p><div class=wide>%s</div>\n",
           sim_roofline(s, false));
  }
  layers(t, s);
  ir_put(t, "<script>%s</script></body></html>\n", sorting);
  return ir_text_str(t);
}
