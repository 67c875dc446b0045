package fastseg;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/**
 * A network of fastseg by ONNX Runtime, in C++: frames of the camera in, class ids out.
 *
 * <p>Buffers are direct ones, read and written from their start. Ids are bytes, rows side by side:
 * {@code id & 255}. They are those of the frame turned clockwise by {@code degrees}, which is what
 * {@code ImageInfo.getRotationDegrees()} says: at 90 and 270 its width and height are exchanged.
 * What cannot be is an IllegalArgumentException.
 */
public final class Segmenter implements AutoCloseable {
  static {
    System.loadLibrary("fastseg_jni");
  }

  private long handle;

  /**
   * @param folder with contract.json and the network, such as {@code getFilesDir()}
   * @param library "libonnxruntime.so", as the package onnxruntime-android has it, or a path
   * @param threads of the CPU; 0: as many as ONNX Runtime likes
   */
  public Segmenter(String folder, String library, int threads) {
    handle = open(utf8(folder), utf8(library), threads);
  }

  /** Segments the one plane of OUTPUT_IMAGE_FORMAT_RGBA_8888. */
  public synchronized void infer(
      ByteBuffer rgba, int rowStride, int width, int height, int degrees, ByteBuffer classes) {
    inferRgba(handle, rgba, rowStride, width, height, degrees, writable(classes));
  }

  /** Segments the three planes of YUV_420_888; strides are of U and V, those of Y are one byte a pixel. */
  public synchronized void infer(
      ByteBuffer y,
      int yRowStride,
      ByteBuffer u,
      ByteBuffer v,
      int rowStride,
      int pixelStride,
      int width,
      int height,
      int degrees,
      ByteBuffer classes) {
    ByteBuffer ids = writable(classes);
    inferYuv(handle, y, yRowStride, u, v, rowStride, pixelStride, width, height, degrees, ids);
  }

  @Override
  public synchronized void close() {
    close(handle);
    handle = 0;
  }

  private static byte[] utf8(String text) {
    if (text == null) {
      throw new IllegalArgumentException("expected a text, got null");
    }
    return text.getBytes(StandardCharsets.UTF_8);
  }

  private static ByteBuffer writable(ByteBuffer classes) {
    if (classes != null && classes.isReadOnly()) {
      throw new IllegalArgumentException("the buffer of classes is read-only");
    }
    return classes;
  }

  private static native long open(byte[] folder, byte[] library, int threads);

  private static native void inferRgba(
      long handle,
      ByteBuffer rgba,
      int rowStride,
      int width,
      int height,
      int degrees,
      ByteBuffer classes);

  private static native void inferYuv(
      long handle,
      ByteBuffer y,
      int yRowStride,
      ByteBuffer u,
      ByteBuffer v,
      int rowStride,
      int pixelStride,
      int width,
      int height,
      int degrees,
      ByteBuffer classes);

  private static native void close(long handle);
}
