/* store_list.c — `tenon db ls`, `show` and the list of pins: what people look at. */
#include "autotune/store_cli.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- statements that a throw releases ---- */

static void finalize(void *st) { sqlite3_finalize(st); }

static sqlite3_stmt *query(at_db_call *c, const char *sql) {
  at_db *db = at_store_main(c->store);
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(db->h, sql, -1, &st, NULL);
  if (rc) at_store_complain(c->store, db, rc, at_code_text(rc));
  ir_defer(c->ctx, finalize, st);
  return st;
}

static bool next(at_db_call *c, sqlite3_stmt *st) {
  int rc = sqlite3_step(st);
  if (rc != SQLITE_ROW && rc != SQLITE_DONE) at_store_complain(c->store, at_store_main(c->store), rc, at_code_text(rc));
  return rc == SQLITE_ROW;
}

static void done(at_db_call *c, sqlite3_stmt *st) {
  ir_undefer(c->ctx, finalize, st);
  sqlite3_finalize(st);
}

static const char *text_at(at_db_call *c, sqlite3_stmt *st, int i) {
  return ir_strdup(c->ctx, at_or_empty((const char *)sqlite3_column_text(st, i)));
}

static double real_at(sqlite3_stmt *st, int i) {
  return sqlite3_column_type(st, i) == SQLITE_NULL ? NAN : sqlite3_column_double(st, i);
}

/* ---- figures for people ---- */

static const char *duration(tn_ctx *ctx, double ns) {
  if (isnan(ns)) return "-";
  if (ns < 1e3) return ir_format(ctx, "%.3g ns", ns);
  if (ns < 1e6) return ir_format(ctx, "%.4g us", ns / 1e3);
  if (ns < 1e9) return ir_format(ctx, "%.4g ms", ns / 1e6);
  return ir_format(ctx, "%.4g s", ns / 1e9);
}

static const char *age(tn_ctx *ctx, int64_t us) {
  if (!us) return "-";
  double s = (double)(at_now_us() - us) / 1e6;
  if (s < 120) return ir_format(ctx, "%.0fs", s < 0 ? 0 : s);
  if (s < 7200) return ir_format(ctx, "%.0fm", s / 60);
  if (s < 172800) return ir_format(ctx, "%.0fh", s / 3600);
  return ir_format(ctx, "%.0fd", s / 86400);
}

static const char *moment(tn_ctx *ctx, int64_t us) {
  time_t t = (time_t)(us / 1000000);
  struct tm tm;
  char text[32];
  if (!us || !localtime_r(&t, &tm) || !strftime(text, sizeof text, "%Y-%m-%d %H:%M", &tm)) return "-";
  return ir_strdup(ctx, text);
}

static void put_indented(FILE *out, const char *text) {
  while (*text) {
    size_t n = strcspn(text, "\n");
    fprintf(out, "    %.*s\n", (int)n, text);
    text += n + (text[n] == '\n');
  }
}

static void json_key(FILE *out, const char *key, const char *text) {
  fprintf(out, ",\"%s\":", key);
  at_json_text(out, text);
}

static void json_number(FILE *out, const char *key, double v) {
  fprintf(out, ",\"%s\":", key);
  at_json_real(out, v);
}

/* ---- tasks ---- */

static bool wild(const char *p, const char *s) {
  for (; *p; p++, s++) {
    if (*p == '*') {
      while (p[1] == '*') p++;
      for (;; s++) {
        if (wild(p + 1, s)) return true;
        if (!*s) return false;
      }
    }
    if (!*s || (*p != '?' && *p != *s)) return false;
  }
  return !*s;
}

static bool matches(const char *pattern, const char *name, const char *task, const char *workload) {
  if (!pattern) return true;
  if (strpbrk(pattern, "*?")) return wild(pattern, name);
  size_t n = strlen(pattern);
  if (n >= 4 && (!strncmp(task, pattern, n) || !strncmp(workload, pattern, n))) return true;
  return strstr(name, pattern) != NULL;
}

static bool exact_name(const at_db_task *t, const char *pattern) { return pattern && !strcmp(t->name, pattern); }

const at_db_task *at_db_find_tasks(at_db_call *c, const char *pattern, int *n) {
  tn_ctx *ctx = c->ctx;
  at_db_task *list = NULL;
  *n = 0;
  if (!at_store_main(c->store)) return NULL;
  sqlite3_stmt *st = query(c,
      "SELECT k.uid, w.uid, w.kernel, w.class, w.name, k.target, k.policy,"
      " coalesce((SELECT codegen FROM trial t WHERE t.task=k.id AND t.status='ok' ORDER BY time DESC LIMIT 1),''),"
      " (SELECT count(*) FROM trial t WHERE t.task=k.id),"
      " (SELECT count(*) FROM trial t WHERE t.task=k.id AND t.status='ok'),"
      " (SELECT count(DISTINCT config) FROM trial t WHERE t.task=k.id),"
      " coalesce((SELECT max(time) FROM trial t WHERE t.task=k.id),0)"
      " FROM task k JOIN workload w ON w.id=k.workload ORDER BY w.name, k.policy, k.uid");
  bool exact = false;
  while (next(c, st)) {
    at_db_task t = {.uid = text_at(c, st, 0), .name = text_at(c, st, 4), .policy = text_at(c, st, 6)};
    if (!matches(pattern, t.name, t.uid, text_at(c, st, 1))) continue;
    if (c->policy && strcmp(c->policy, t.policy)) continue;
    t.kernel = text_at(c, st, 2);
    t.klass = text_at(c, st, 3);
    t.target = text_at(c, st, 5);
    t.codegen = text_at(c, st, 7);
    t.trials = sqlite3_column_int64(st, 8);
    t.ok = sqlite3_column_int64(st, 9);
    t.configs = sqlite3_column_int64(st, 10);
    t.last_us = sqlite3_column_int64(st, 11);
    t.default_ns = NAN;
    exact |= exact_name(&t, pattern);
    IR_PUSH(ctx, list, *n, t);
  }
  done(c, st);
  if (exact) { /* "gemm:f32:64x64x64" does not also mean "...x64:cold" */
    int m = 0;
    for (int i = 0; i < *n; i++)
      if (exact_name(&list[i], pattern)) list[m++] = list[i];
    *n = m;
  }
  st = query(c, "SELECT median_ns FROM task k JOIN contender t ON t.task=k.id"
                " WHERE k.uid=?1 AND t.codegen=?2 AND t.config IN (SELECT config FROM trial WHERE task=k.id AND origin='default')"
                " ORDER BY n DESC, time DESC LIMIT 1"); /* after a final its best-founded row is the final's */
  for (int i = 0; i < *n; i++) {
    at_st_text(st, 1, list[i].uid);
    at_st_text(st, 2, list[i].codegen);
    if (next(c, st)) list[i].default_ns = real_at(st, 0);
    sqlite3_reset(st);
  }
  done(c, st);
  return list;
}

const char *at_db_find_config(at_db_call *c, const char *prefix) {
  sqlite3_stmt *st = query(c, "SELECT schedule FROM config WHERE substr(uid,1,length(?1))=?1 LIMIT 2");
  at_st_text(st, 1, prefix);
  const char *schedule = strlen(prefix) >= 4 && next(c, st) ? text_at(c, st, 0) : NULL;
  if (!schedule) ir_fail(c->ctx, TN_EUSAGE, "tenon db pin: no config has an id that starts with '%s' (4 digits at least)", prefix);
  if (next(c, st)) ir_fail(c->ctx, TN_EUSAGE, "tenon db pin: more than one config id starts with '%s'", prefix);
  done(c, st);
  return schedule;
}

static bool winner_of(at_db_call *c, const at_db_task *t, at_winner *w) {
  at_key key = {t->kernel, t->target, t->policy, t->codegen};
  return at_store_best(c->store, &key, w);
}

/* ---- ls ---- */

static void json_task(at_db_call *c, const at_db_task *t, const at_winner *w, bool has) {
  FILE *out = c->out;
  fprintf(out, "{\"id\":\"%s\"", t->uid);
  json_key(out, "name", t->name);
  json_key(out, "class", t->klass);
  json_key(out, "target", t->target);
  json_key(out, "policy", t->policy);
  json_key(out, "codegen", t->codegen);
  fprintf(out, ",\"trials\":%lld,\"ok\":%lld,\"configs\":%lld,\"last_us\":%lld", (long long)t->trials, (long long)t->ok,
          (long long)t->configs, (long long)t->last_us);
  json_number(out, "best_ns", has ? w->median_ns : NAN);
  json_number(out, "default_ns", t->default_ns);
  fprintf(out, ",\"pinned\":%s", has && w->pinned ? "true" : "false");
}

void at_db_ls(at_db_call *c) {
  if (c->nargs > 1) ir_fail(c->ctx, TN_EUSAGE, "tenon db ls: one pattern at most");
  int n;
  const at_db_task *t = at_db_find_tasks(c, c->nargs ? c->args[0] : NULL, &n);
  int wide = 4, policy = 6;
  for (int i = 0; i < n; i++) {
    if ((int)strlen(t[i].name) > wide) wide = (int)strlen(t[i].name);
    if ((int)strlen(t[i].policy) > policy) policy = (int)strlen(t[i].policy);
  }
  if (wide > 48) wide = 48;
  if (c->json) fputs("{\"tasks\":[", c->out);
  else if (n) fprintf(c->out, "%-8s  %-*s  %-*s %7s %6s %7s %10s %8s %5s\n", "ID", wide, "NAME", policy, "POLICY", "TRIALS",
                      "FAILED", "CONFIGS", "BEST", "GAIN", "AGE");
  for (int i = 0; i < n; i++) {
    at_winner w;
    bool has = winner_of(c, &t[i], &w);
    if (c->json) {
      if (i) fputc(',', c->out);
      json_task(c, &t[i], &w, has);
      fputc('}', c->out);
      continue;
    }
    bool gain = has && w.median_ns > 0 && t[i].default_ns > 0;
    fprintf(c->out, "%-8.8s  %-*s  %-*s %7lld %6lld %7lld %10s %8s %5s%s\n", t[i].uid, wide, t[i].name, policy, t[i].policy,
            (long long)t[i].trials, (long long)(t[i].trials - t[i].ok), (long long)t[i].configs,
            has ? duration(c->ctx, w.median_ns) : "-", gain ? ir_format(c->ctx, "%+.1f%%", 100 * (t[i].default_ns / w.median_ns - 1)) : "-",
            age(c->ctx, t[i].last_us), has && w.pinned ? "  pinned" : "");
  }
  if (c->json) fputs("]}\n", c->out);
  else if (!n) fprintf(c->out, c->nargs ? "no kernel matches '%s'\n" : "the store is empty\n", c->nargs ? c->args[0] : "");
}

/* ---- show ---- */

static void show_top(at_db_call *c, const at_db_task *t) {
  sqlite3_stmt *st = query(c,
      "SELECT c.uid, t.median_ns, t.mad_ns, t.min_ns, t.n, t.predicted_ns, t.origin, t.stage, t.time, c.schedule"
      " FROM task k JOIN contender t ON t.task=k.id JOIN config c ON c.id=t.config"
      " WHERE k.uid=?1 AND t.codegen=?2 ORDER BY t.cost_ns, t.predicted_ns, t.uid LIMIT ?3");
  at_st_text(st, 1, t->uid);
  at_st_text(st, 2, t->codegen);
  sqlite3_bind_int(st, 3, c->top);
  if (c->json) fputs(",\"top\":[", c->out);
  for (int i = 0; next(c, st); i++) {
    const char *uid = text_at(c, st, 0);
    double median = real_at(st, 1), mad = real_at(st, 2), predicted = real_at(st, 5);
    int samples = sqlite3_column_int(st, 4);
    if (c->json) {
      fprintf(c->out, "%s{\"config\":\"%s\"", i ? "," : "", uid);
      json_number(c->out, "median_ns", median);
      json_number(c->out, "mad_ns", mad);
      json_number(c->out, "min_ns", real_at(st, 3));
      fprintf(c->out, ",\"samples\":%d", samples);
      json_number(c->out, "predicted_ns", predicted);
      json_key(c->out, "origin", text_at(c, st, 6));
      json_key(c->out, "schedule", text_at(c, st, 9));
      fputc('}', c->out);
      continue;
    }
    if (!i) fprintf(c->out, "  best configs  (config, median, spread, samples, predicted, origin, when)\n");
    fprintf(c->out, "    %.8s  %10s  %5.1f%%  %3d  %10s  %-8s  %s\n", uid, duration(c->ctx, median), 100 * mad / median, samples,
            duration(c->ctx, predicted), text_at(c, st, 6), moment(c->ctx, sqlite3_column_int64(st, 8)));
  }
  if (c->json) fputc(']', c->out);
  done(c, st);
}

static void show_failures(at_db_call *c, const at_db_task *t) {
  sqlite3_stmt *st = query(c, "SELECT t.status, t.reason, count(*) FROM task k JOIN trial t ON t.task=k.id"
                              " WHERE k.uid=?1 AND t.status<>'ok' GROUP BY 1,2 ORDER BY 3 DESC,1,2 LIMIT 20");
  at_st_text(st, 1, t->uid);
  if (c->json) fputs(",\"failures\":[", c->out);
  for (int i = 0; next(c, st); i++) {
    const char *status = text_at(c, st, 0), *reason = text_at(c, st, 1);
    long long count = sqlite3_column_int64(st, 2);
    if (c->json) {
      fprintf(c->out, "%s{\"status\":\"%s\",\"count\":%lld", i ? "," : "", status, count);
      json_key(c->out, "reason", reason);
      fputc('}', c->out);
      continue;
    }
    if (!i) fprintf(c->out, "  failures\n");
    fprintf(c->out, "    %5lld  %-13s  %.*s\n", count, status, (int)strcspn(reason, "\n"), reason);
  }
  if (c->json) fputc(']', c->out);
  done(c, st);
}

static void show_winner(at_db_call *c, const at_winner *w, bool has) {
  if (c->json) {
    if (!has) {
      fputs(",\"winner\":null", c->out);
      return;
    }
    fprintf(c->out, ",\"winner\":{\"pinned\":%s,\"samples\":%d", w->pinned ? "true" : "false", w->n);
    json_number(c->out, "median_ns", w->median_ns);
    json_key(c->out, "trial", w->uid);
    json_key(c->out, "schedule", w->schedule);
    fputc('}', c->out);
    return;
  }
  if (!has) {
    fprintf(c->out, "  winner    none\n");
    return;
  }
  fprintf(c->out, "  winner    %s (%d samples)%s\n", duration(c->ctx, w->median_ns), w->n, w->pinned ? ", pinned by hand" : "");
  if (w->schedule[0]) put_indented(c->out, w->schedule);
  else fprintf(c->out, "    (unscheduled)\n");
}

void at_db_show(at_db_call *c) {
  if (c->nargs != 1) ir_fail(c->ctx, TN_EUSAGE, "tenon db show: expected one pattern");
  int n;
  const at_db_task *t = at_db_find_tasks(c, c->args[0], &n);
  if (!n && !c->json) ir_fail(c->ctx, TN_EUSAGE, "tenon db show: no kernel matches '%s'", c->args[0]);
  if (c->json) fputs("{\"tasks\":[", c->out);
  for (int i = 0; i < n; i++) {
    at_winner w;
    bool has = winner_of(c, &t[i], &w);
    if (c->json) {
      if (i) fputc(',', c->out);
      json_task(c, &t[i], &w, has);
      json_key(c->out, "kernel", t[i].kernel);
    } else {
      fprintf(c->out, "%s%s\n  id        %s\n  class     %s\n  target    %s\n  policy    %s\n  codegen   %s\n"
              "  trials    %lld, %lld failed, %lld configs, last %s\n", i ? "\n" : "", t[i].name, t[i].uid, t[i].klass,
              t[i].target, t[i].policy, t[i].codegen, (long long)t[i].trials, (long long)(t[i].trials - t[i].ok),
              (long long)t[i].configs, moment(c->ctx, t[i].last_us));
      if (!isnan(t[i].default_ns)) fprintf(c->out, "  default   %s\n", duration(c->ctx, t[i].default_ns));
    }
    show_winner(c, &w, has);
    show_top(c, &t[i]);
    show_failures(c, &t[i]);
    if (c->json) {
      fputc('}', c->out);
    } else {
      fprintf(c->out, "  kernel\n");
      put_indented(c->out, t[i].kernel);
    }
  }
  if (c->json) fputs("]}\n", c->out);
}

/* ---- pins ---- */

void at_db_list_pins(at_db_call *c) {
  sqlite3_stmt *st = query(c, "SELECT k.uid, w.name, k.policy, c.uid, p.note, p.stamp FROM pin p JOIN task k ON k.id=p.task"
                              " JOIN workload w ON w.id=k.workload JOIN config c ON c.id=p.config WHERE p.active"
                              " ORDER BY w.name, k.policy");
  if (c->json) fputs("{\"pins\":[", c->out);
  int i = 0;
  for (; next(c, st); i++) {
    const char *task = text_at(c, st, 0), *name = text_at(c, st, 1), *policy = text_at(c, st, 2), *config = text_at(c, st, 3),
               *note = text_at(c, st, 4);
    if (c->json) {
      fprintf(c->out, "%s{\"id\":\"%s\",\"config\":\"%s\"", i ? "," : "", task, config);
      json_key(c->out, "name", name);
      json_key(c->out, "policy", policy);
      json_key(c->out, "note", note);
      fputc('}', c->out);
    } else {
      fprintf(c->out, "%.8s  %s  %s  config %.8s  %s  %s\n", task, name, policy, config, moment(c->ctx, sqlite3_column_int64(st, 5)), note);
    }
  }
  done(c, st);
  if (c->json) fputs("]}\n", c->out);
  else if (!i) fprintf(c->out, "nothing is pinned\n");
}
