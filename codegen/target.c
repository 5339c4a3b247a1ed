/* target.c — the table of CPUs, host detection, what code may run here. */
#include "codegen/target.h"
#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* ---- extensions and where cpuid shows them (Intel SDM volume 2A, CPUID) ---- */

/* XCR0: AVX, opmask and ZMM state. Every x86-64 system saves XMM registers, also one without XSAVE. */
enum { XMM = 0, YMM = 6, ZMM = 0xe6 };

static const cg_isa_bit isa_bits[] = {
    {"sse3", 1, 0, 2, 0, XMM},        {"ssse3", 1, 0, 2, 9, XMM},
    {"sse4.1", 1, 0, 2, 19, XMM},     {"sse4.2", 1, 0, 2, 20, XMM},
    {"cx16", 1, 0, 2, 13, 0},         {"popcnt", 1, 0, 2, 23, 0},
    {"movbe", 1, 0, 2, 22, 0},        {"f16c", 1, 0, 2, 29, YMM},
    {"fma", 1, 0, 2, 12, YMM},        {"avx", 1, 0, 2, 28, YMM},
    {"sahf", 0x80000001, 0, 2, 0, 0}, {"lzcnt", 0x80000001, 0, 2, 5, 0},
    {"avx2", 7, 0, 1, 5, YMM},        {"bmi", 7, 0, 1, 3, 0},
    {"bmi2", 7, 0, 1, 8, 0},          {"avx512f", 7, 0, 1, 16, ZMM},
    {"avx512dq", 7, 0, 1, 17, ZMM},   {"avx512cd", 7, 0, 1, 28, ZMM},
    {"avx512bw", 7, 0, 1, 30, ZMM},   {"avx512vl", 7, 0, 1, 31, ZMM},
    {"avx512vnni", 7, 0, 2, 11, ZMM}, {"avx512bf16", 7, 1, 0, 5, ZMM},
    {"avx512fp16", 7, 0, 3, 23, ZMM}, {"avxvnni", 7, 1, 0, 4, YMM},
    {"avx512ifma", 7, 0, 1, 21, ZMM}, {"avx512vbmi", 7, 0, 2, 1, ZMM},
    {"avx512vbmi2", 7, 0, 2, 6, ZMM}, {"avx512bitalg", 7, 0, 2, 12, ZMM},
    {"avx512vpopcntdq", 7, 0, 2, 14, ZMM}, {"gfni", 7, 0, 2, 8, 0},
};

static const cg_isa_bit *isa_find(const char *name, size_t n) {
  for (int i = 0; i < IR_COUNT(isa_bits); i++)
    if (strlen(isa_bits[i].name) == n && memcmp(isa_bits[i].name, name, n) == 0) return &isa_bits[i];
  return NULL;
}

static bool isa_here(const cg_isa_bit *bit) {
#if defined(__x86_64__)
  unsigned r[4];
  if (!__get_cpuid_count(bit->leaf, bit->subleaf, &r[0], &r[1], &r[2], &r[3])) return false;
  if (!(r[bit->reg] >> bit->bit & 1)) return false;
  if (!bit->xcr0) return true;
  unsigned s[4], low, high;
  if (!__get_cpuid_count(1, 0, &s[0], &s[1], &s[2], &s[3]) || !(s[2] >> 27 & 1)) return false; /* OSXSAVE */
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (low & bit->xcr0) == bit->xcr0;
#else
  (void)bit;
  return false;
#endif
}

/* ---- the rows ---- */

/* Zero or null fields come from the parent, which stands above. `isa` adds to the
 * parent's. LLVM's CPU names imply the features; the flags below are what the
 * emitter looks at. */
typedef struct row {
  const char *name, *parent, *triple, *cpu, *features, *isa;
  cg_arch arch;
  int vector_bits, vector_regs;
  bool fma, round, half, masks, vnni, bf16, fp16;
  int64_t l1, l2;
} row;

static const row rows[] = {
    {.name = "x86-64", .triple = "x86_64-unknown-linux-gnu", .cpu = "x86-64", .features = "", .isa = "",
     .arch = CG_X86_64, .vector_bits = 128, .vector_regs = 16, .l1 = 32 << 10, .l2 = 256 << 10},
    {.name = "x86-64-v2", .parent = "x86-64", .cpu = "x86-64-v2", .round = true,
     .isa = "sse3 ssse3 sse4.1 sse4.2 cx16 popcnt sahf"},
    {.name = "x86-64-v3", .parent = "x86-64-v2", .cpu = "x86-64-v3", .vector_bits = 256, .fma = true,
     .half = true, .isa = "avx avx2 fma f16c bmi bmi2 lzcnt movbe", .l2 = 512 << 10},
    {.name = "x86-64-v4", .parent = "x86-64-v3", .cpu = "x86-64-v4", .vector_bits = 512, .vector_regs = 32,
     .masks = true, .isa = "avx512f avx512bw avx512cd avx512dq avx512vl", .l2 = 1 << 20},
    {.name = "alderlake", .parent = "x86-64-v3", .cpu = "x86-64-v3", .features = "+avxvnni", .vnni = true, .isa = "avxvnni"},
    {.name = "cascadelake", .parent = "x86-64-v4", .cpu = "cascadelake", .vnni = true, .isa = "avx512vnni"},
    {.name = "sapphirerapids", .parent = "cascadelake", .cpu = "sapphirerapids", .bf16 = true, .fp16 = true,
     .features = "-amx-tile,-amx-int8,-amx-bf16", .isa = "avx512bf16 avx512fp16", .l1 = 48 << 10, .l2 = 2 << 20},
    {.name = "aarch64", .triple = "aarch64-unknown-linux-gnu", .cpu = "generic", .features = "+neon", .isa = "",
     .arch = CG_AARCH64, .vector_bits = 128, .vector_regs = 32, .fma = true, .round = true, .half = true,
     .l1 = 32 << 10, .l2 = 512 << 10},
    {.name = "neoverse-n1", .parent = "aarch64", .cpu = "neoverse-n1", .vnni = true, .l1 = 64 << 10, .l2 = 1 << 20},
};

static const char *const names[] = {"native", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "alderlake", "cascadelake",
                                    "sapphirerapids", "aarch64", "neoverse-n1", NULL};
_Static_assert(IR_COUNT(names) == IR_COUNT(rows) + 2, "a name per row, native, null");

const char *const *cg_target_names(void) { return names; }

static const row *row_find(const char *name) {
  for (int i = 0; i < IR_COUNT(rows); i++)
    if (strcmp(rows[i].name, name) == 0) return &rows[i];
  return NULL;
}

static void add_isa(tn_ctx *ctx, cg_target *t, const cg_isa_bit *bit) {
  const cg_isa_bit **list = (const cg_isa_bit **)t->isa;
  IR_PUSH(ctx, list, t->nisa, bit);
  t->isa = list;
  t->isa_text = t->nisa == 1 ? bit->name : ir_format(ctx, "%s %s", t->isa_text, bit->name);
}

static void apply(tn_ctx *ctx, cg_target *t, const row *r) {
  if (r->parent) apply(ctx, t, row_find(r->parent));
  else t->arch = r->arch, t->isa_text = "";
  t->name = r->name;
  if (r->triple) t->triple = r->triple;
  if (r->cpu) t->cpu = r->cpu;
  if (r->features) t->features = r->features;
  if (r->vector_bits) t->vector_bits = r->vector_bits;
  if (r->vector_regs) t->vector_regs = r->vector_regs;
  t->fma |= r->fma;
  t->round |= r->round;
  t->half |= r->half;
  t->masks |= r->masks;
  t->vnni |= r->vnni;
  t->bf16 |= r->bf16;
  t->fp16 |= r->fp16;
  if (r->l1) t->l1_bytes = r->l1;
  if (r->l2) t->l2_bytes = r->l2;
  for (const char *s = r->isa; s && *s;) {
    size_t n = strcspn(s, " ");
    const cg_isa_bit *bit = isa_find(s, n);
    if (!bit) ir_bug(ctx, "row %s: no extension '%.*s'", r->name, (int)n, s);
    add_isa(ctx, t, bit);
    s += n + strspn(s + n, " ");
  }
}

/* ---- this machine ---- */

static void free_message(void *arg) {
  char **message = arg;
  if (*message) LLVMDisposeMessage(*message);
  *message = NULL;
}

/* What LLVM says, in the arena; registered before it is asked for, as copying may throw. */
static char *take_message(tn_ctx *ctx, char *(*ask)(void)) {
  char **message = IR_NEW(ctx, char *);
  ir_defer(ctx, free_message, message);
  *message = ask();
  char *copy = ir_strdup(ctx, *message);
  ir_undefer(ctx, free_message, message);
  free_message(message);
  return copy;
}

/* "+a,-b,+amx-tile,..." without what we never use: AMX needs a permission from the
 * system, and naming it changes nothing in the code. */
static char *host_features(tn_ctx *ctx) {
  char *all = take_message(ctx, LLVMGetHostCPUFeatures);
  ir_text out = {.ctx = ctx};
  for (char *s = all; *s;) {
    size_t n = strcspn(s, ",");
    if (strncmp(s + 1, "amx", 3) != 0) ir_put(&out, "%s%.*s", out.n ? "," : "", (int)n, s);
    s += n + (s[n] == ',');
  }
  return ir_strdup(ctx, ir_text_str(&out));
}

static bool has_feature(const char *features, const char *name) {
  size_t n = strlen(name);
  for (const char *s = features; *s; s += strcspn(s, ","), s += *s == ',')
    if (*s == '+' && strncmp(s + 1, name, n) == 0 && (s[n + 1] == ',' || !s[n + 1])) return true;
  return false;
}

static void host(tn_ctx *ctx, cg_target *t) {
  const char *cpu = take_message(ctx, LLVMGetHostCPUName);
  const char *features = host_features(ctx);
#if defined(__x86_64__)
  apply(ctx, t, row_find("x86-64"));
  for (int i = 0; i < IR_COUNT(isa_bits); i++)
    if (has_feature(features, isa_bits[i].name) && isa_here(&isa_bits[i])) add_isa(ctx, t, &isa_bits[i]);
  t->round = has_feature(features, "sse4.1");
  t->fma = has_feature(features, "fma");
  t->half = has_feature(features, "f16c");
  t->masks = has_feature(features, "avx512f") && has_feature(features, "avx512bw") &&
             has_feature(features, "avx512dq") && has_feature(features, "avx512vl");
  t->vnni = has_feature(features, "avx512vnni") || (has_feature(features, "avxvnni") && !t->masks);
  t->bf16 = has_feature(features, "avx512bf16");
  t->fp16 = has_feature(features, "avx512fp16");
  t->vector_bits = t->masks ? 512 : has_feature(features, "avx2") ? 256 : 128;
  t->vector_regs = t->masks ? 32 : 16;
#else
  apply(ctx, t, row_find("aarch64"));
#endif
  long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE), l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (l1 > 0) t->l1_bytes = l1;
  if (l2 > 0) t->l2_bytes = l2;
  t->name = "native";
  t->cpu = cpu;
  t->features = features;
}

/* ---- the public functions ---- */

static bool triple_arch(const char *triple, cg_arch *arch) {
  size_t n = strcspn(triple, "-");
  if ((n == 6 && strncmp(triple, "x86_64", n) == 0) || (n == 5 && strncmp(triple, "amd64", n) == 0)) *arch = CG_X86_64;
  else if ((n == 7 && strncmp(triple, "aarch64", n) == 0) || (n == 5 && strncmp(triple, "arm64", n) == 0)) *arch = CG_AARCH64;
  else return false;
  return true;
}

const cg_target *cg_target_find(tn_ctx *ctx, const char *cpu, const char *triple) {
  char *host_triple = take_message(ctx, LLVMGetDefaultTargetTriple);
  cg_arch host_arch = CG_X86_64, arch;
  bool host_known = triple_arch(host_triple, &host_arch);
  cg_target *t = IR_NEW(ctx, cg_target);
  if (!cpu || !*cpu) cpu = "native";
  if (triple && !*triple) triple = NULL;
  if (triple && !triple_arch(triple, &arch))
    ir_fail(ctx, TN_EUSAGE, "triple '%s': only x86_64 and aarch64 are known", triple);
  if (strcmp(cpu, "native") == 0) {
    if (!triple || (host_known && arch == host_arch)) {
      if (!host_known) ir_fail(ctx, TN_EUNSUPPORTED, "this machine (%s) is no known target; name one", host_triple);
      host(ctx, t);
      t->triple = triple ? ir_strdup(ctx, triple) : host_triple;
      return t;
    }
    cpu = arch == CG_X86_64 ? "x86-64" : "aarch64";
  }
  const row *r = row_find(cpu);
  if (!r) {
    ir_text list = {.ctx = ctx};
    for (int i = 0; names[i]; i++) ir_put(&list, "%s%s", i ? ", " : "", names[i]);
    ir_fail(ctx, TN_EUSAGE, "cpu '%s' is not known; there are: %s", cpu, ir_text_str(&list));
  }
  apply(ctx, t, r);
  if (triple && arch != t->arch) ir_fail(ctx, TN_EUSAGE, "cpu '%s' does not fit the triple '%s'", cpu, triple);
  if (triple) t->triple = ir_strdup(ctx, triple);
  else if (host_known && host_arch == t->arch) t->triple = host_triple;
  return t;
}

bool cg_target_runs_here(tn_ctx *ctx, const cg_target *t, const char **missing) {
  cg_arch arch;
  char *triple = take_message(ctx, LLVMGetDefaultTargetTriple);
  if (!triple_arch(triple, &arch) || arch != t->arch) {
    if (missing) *missing = t->arch == CG_X86_64 ? "x86-64" : "aarch64";
    return false;
  }
  for (int i = 0; i < t->nisa; i++)
    if (!isa_here(t->isa[i])) {
      if (missing) *missing = t->isa[i]->name;
      return false;
    }
  return true;
}

const char *cg_target_fingerprint(tn_ctx *ctx, const cg_target *t) {
  return ir_format(ctx, "%s cpu=%s features=%016llx vector=%d regs=%d l1=%lld l2=%lld",
                   t->arch == CG_X86_64 ? "x86-64" : "aarch64", t->cpu,
                   (unsigned long long)ir_hash_bytes(t->features, strlen(t->features), 1), t->vector_bits,
                   t->vector_regs, (long long)t->l1_bytes, (long long)t->l2_bytes);
}

int cg_target_lanes(const cg_target *t, tn_dtype dtype) {
  int bits = ir_dtype_bits(dtype);
  return bits > 0 && bits < t->vector_bits ? t->vector_bits / bits : 1;
}
