/* Many least-squares fits, one after another, by MINPACK's lmder with its derivatives written out: what a program in C
 * does. The model has `decay` terms a exp(-r x), or `peaks` terms h exp(-((x - c) / s)^2 / 2), and then a polynomial of
 * `level` coefficients, constant first; with decay = 2 there is one decay whose amplitude is 1. With spot = 1 it is
 * h exp(-((x - a)^2 + (y - b)^2) / (2 s^2)) + level, of params h, a, b, s, level, and x holds pairs. */
#include <cminpack-1/cminpack.h>
#include <math.h>
#include <stdlib.h>

typedef struct {
  int decay, peaks, level, spot;
  const double *x, *y;
} Set;

static int residuals(void *given, int points, int k, const double *restrict p, double *restrict r, double *restrict jac,
                     int ld, int what) {
  const Set *set = given;
  const double *restrict x = set->x, *restrict y = set->y;
  if (set->spot) {
    double per = 1 / (p[3] * p[3]);
    for (int i = 0; i < points; i++) {
      double a = x[2 * i] - p[1], b = x[2 * i + 1] - p[2], square = a * a + b * b, e = exp(-0.5 * per * square);
      if (what == 1) {
        r[i] = p[0] * e + p[4] - y[i];
      } else {
        double slope = p[0] * e * per;
        jac[i] = e;
        jac[i + ld] = slope * a;
        jac[i + ld * 2] = slope * b;
        jac[i + ld * 3] = slope * square / p[3];
        jac[i + ld * 4] = 1;
      }
    }
  } else if (what == 1) {
    for (int i = 0; i < points; i++) r[i] = -y[i];
    int j = 0;
    if (set->decay == 1) {
      for (int i = 0; i < points; i++) r[i] += p[0] * exp(-p[1] * x[i]);
      j = 2;
    } else if (set->decay == 2) {
      for (int i = 0; i < points; i++) r[i] += exp(-p[0] * x[i]);
      j = 1;
    }
    for (int n = 0; n < set->peaks; n++, j += 3)
      for (int i = 0; i < points; i++) {
        double z = (x[i] - p[j + 1]) / p[j + 2];
        r[i] += p[j] * exp(-0.5 * z * z);
      }
    for (int i = 0; i < points; i++) {
      double power = 1;
      for (int n = 0; n < set->level; n++, power *= x[i]) r[i] += p[j + n] * power;
    }
  } else {
    int j = 0;
    if (set->decay == 1) {
      for (int i = 0; i < points; i++) {
        double e = exp(-p[1] * x[i]);
        jac[i] = e;
        jac[i + ld] = -p[0] * x[i] * e;
      }
      j = 2;
    } else if (set->decay == 2) {
      for (int i = 0; i < points; i++) jac[i] = -x[i] * exp(-p[0] * x[i]);
      j = 1;
    }
    for (int n = 0; n < set->peaks; n++, j += 3)
      for (int i = 0; i < points; i++) {
        double z = (x[i] - p[j + 1]) / p[j + 2], e = exp(-0.5 * z * z), slope = p[j] * e * z / p[j + 2];
        jac[i + ld * j] = e;
        jac[i + ld * (j + 1)] = slope;
        jac[i + ld * (j + 2)] = slope * z;
      }
    for (int i = 0; i < points; i++) {
      double power = 1;
      for (int n = 0; n < set->level; n++, power *= x[i]) jac[i + ld * (j + n)] = power;
    }
  }
  return 0;
}

/* params (sets, k) hold the starts and then the ends; errors (sets, k), info and calls (sets) are written. */
void fit(int sets, int points, int k, int decay, int peaks, int level, int spot, const double *x, const double *y,
         double tol, double *params, double *errors, int *info, int *calls) {
  double *jac = malloc(sizeof(double) * points * k), *r = malloc(sizeof(double) * points);
  double *room = malloc(sizeof(double) * (5 * k + points));
  double *diag = room, *qtf = room + k, *wa1 = room + 2 * k, *wa2 = room + 3 * k, *wa3 = room + 4 * k, *wa4 = room + 5 * k;
  int *pivots = malloc(sizeof(int) * k);
  for (int l = 0; l < sets; l++) {
    Set set = {decay, peaks, level, spot, x, y + (size_t)l * points};
    double *p = params + (size_t)l * k, squares = 0;
    int slopes;
    info[l] = lmder(residuals, &set, points, k, p, r, jac, points, tol, tol, 0.0, 100 * (k + 1), diag, 1, 100.0, 0,
                    calls + l, &slopes, pivots, qtf, wa1, wa2, wa3, wa4);
    for (int i = 0; i < points; i++) squares += r[i] * r[i];
    covar(k, jac, points, pivots, 1e-14, wa1);
    for (int j = 0; j < k; j++) errors[(size_t)l * k + j] = sqrt(jac[j + points * j] * squares / (points - k));
  }
  free(jac), free(r), free(room), free(pivots);
}
