/* store_env.c — what the machine says about itself, for the environment row. */
#include "autotune/store_internal.h"
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

/* First line of a small file, without its end; null if there is none. */
static const char *first_line(tn_ctx *ctx, const char *path) {
  char line[256];
  FILE *f = fopen(path, "r");
  if (!f) return NULL;
  bool ok = fgets(line, sizeof line, f) != NULL;
  fclose(f);
  if (!ok) return NULL;
  line[strcspn(line, "\n")] = 0;
  return ir_strdup(ctx, line);
}

/* Value of the first "name : value" line in /proc/cpuinfo among `names`. */
static const char *cpuinfo(tn_ctx *ctx, const char *const *names, int n) {
  FILE *f = fopen("/proc/cpuinfo", "r");
  if (!f) return "";
  char line[8192];
  const char *found = NULL;
  while (!found && fgets(line, sizeof line, f)) {
    char *colon = strchr(line, ':');
    if (!colon) continue;
    size_t len = (size_t)(colon - line);
    while (len && (line[len - 1] == ' ' || line[len - 1] == '\t')) len--;
    for (int i = 0; i < n && !found; i++)
      if (strlen(names[i]) == len && !memcmp(line, names[i], len)) {
        colon[1 + strcspn(colon + 1, "\n")] = 0;
        found = colon + 1 + strspn(colon + 1, " \t");
      }
  }
  fclose(f);
  return found ? ir_strdup(ctx, found) : "";
}

/* Those features of `flags` that change what code is generated, in a fixed order. */
static const char *isa_of(tn_ctx *ctx, const char *flags) {
  static const char *const known[] = {
      "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni",
      "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "i8mm", "bf16",
      "sve", "sve2", "sme"};
  ir_text t = {.ctx = ctx};
  for (int i = 0; i < IR_COUNT(known); i++) {
    size_t n = strlen(known[i]);
    for (const char *p = flags; (p = strstr(p, known[i])); p += n)
      if ((p == flags || p[-1] == ' ') && (p[n] == ' ' || !p[n])) {
        ir_put(&t, "%s%s", t.n ? "," : "", known[i]);
        break;
      }
  }
  return ir_text_str(&t);
}

void at_env_read(tn_ctx *ctx, at_env *env) {
  env->cpu = cpuinfo(ctx, (const char *const[]){"model name", "Model", "Hardware"}, 3);
  env->isa = isa_of(ctx, cpuinfo(ctx, (const char *const[]){"flags", "Features"}, 2));
  ir_text t = {.ctx = ctx};
  for (int i = 0; i < 8; i++) { /* "L1d 48K, L2 2048K, L3 260M" */
    char dir[96];
    snprintf(dir, sizeof dir, "/sys/devices/system/cpu/cpu0/cache/index%d", i);
    const char *level = first_line(ctx, ir_format(ctx, "%s/level", dir));
    const char *type = first_line(ctx, ir_format(ctx, "%s/type", dir));
    const char *size = first_line(ctx, ir_format(ctx, "%s/size", dir));
    if (!level || !type || !size || type[0] == 'I') continue;
    ir_put(&t, "%sL%s%s %s", t.n ? ", " : "", level, type[0] == 'D' ? "d" : "", size);
  }
  env->caches = ir_text_str(&t);
  struct utsname u;
  env->kernel = uname(&u) ? "" : ir_format(ctx, "%s %s %s", u.sysname, u.release, u.machine);
}
