/* Gradient descent on the mean squared error of a line, one lane after another would be one number at a time: here
 * WIDTH lanes advance side by side, so that the compiler keeps them in vector registers. This is the least work there
 * is: no stop rule, no record, nothing allocated. The points are read at every step, as a general loss would. */
#define WIDTH 64

static void block(int points, const float *restrict x, const float *restrict y, int steps, const float *restrict rate,
                  float *restrict w, float *restrict b, float *restrict loss) {
  float ww[WIDTH], bb[WIDTH], scaled[WIDTH], gw[WIDTH], gb[WIDTH];
  for (int l = 0; l < WIDTH; l++) {
    ww[l] = w[l];
    bb[l] = b[l];
    scaled[l] = rate[l] * 2.0f / (float)points;
  }
  for (int t = 0; t < steps; t++) {
    for (int l = 0; l < WIDTH; l++) gw[l] = gb[l] = 0.0f;
    for (int i = 0; i < points; i++)
      for (int l = 0; l < WIDTH; l++) {
        float residual = ww[l] * x[i] + bb[l] - y[i];
        gw[l] += residual * x[i];
        gb[l] += residual;
      }
    for (int l = 0; l < WIDTH; l++) {
      ww[l] -= scaled[l] * gw[l];
      bb[l] -= scaled[l] * gb[l];
    }
  }
  for (int l = 0; l < WIDTH; l++) {
    float sum = 0.0f;
    for (int i = 0; i < points; i++) {
      float residual = ww[l] * x[i] + bb[l] - y[i];
      sum += residual * residual;
    }
    w[l] = ww[l];
    b[l] = bb[l];
    loss[l] = sum / (float)points;
  }
}

/* lanes is a multiple of WIDTH; w and b hold the start and then the end. */
void descend(int lanes, int points, const float *x, const float *y, int steps, const float *rate, float *w, float *b,
             float *loss) {
  for (int first = 0; first < lanes; first += WIDTH)
    block(points, x, y, steps, rate + first, w + first, b + first, loss + first);
}
