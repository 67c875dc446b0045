import fastseg.Segmenter;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Frames on stdin to ids on stdout: FOLDER LIBRARY. A frame is the integers width, height, degrees,
 * strides of plane 0 and of the others, pixel stride, and bytes of the answer; then as many planes
 * as the next integer says, each its size (-1: null) and bytes. An answer is its size and bytes, or
 * -1 and why not.
 */
public final class Frames {
  public static void main(String[] arguments) throws IOException {
    DataInputStream in = new DataInputStream(System.in);
    DataOutputStream out = new DataOutputStream(System.out);
    Segmenter kept = null;
    try (Segmenter segmenter = new Segmenter(arguments[0], arguments[1], 1)) {
      kept = segmenter;
      while (true) {
        answer(segmenter, in, out);
      }
    } catch (EOFException end) {
      try {
        ByteBuffer none = ByteBuffer.allocateDirect(4);
        kept.infer(none, 4, 1, 1, 0, none);
      } catch (IllegalArgumentException closed) {
        out.writeUTF(closed.getMessage());
      }
    } catch (IllegalArgumentException error) {
      System.err.println(error.getMessage());
      System.exit(1);
    }
    out.flush();
  }

  private static void answer(Segmenter segmenter, DataInputStream in, DataOutputStream out)
      throws IOException {
    int[] n = new int[8];
    for (int index = 0; index < n.length; index++) {
      n[index] = in.readInt();
    }
    ByteBuffer[] planes = new ByteBuffer[n[7]];
    for (int index = 0; index < planes.length; index++) {
      planes[index] = plane(in);
    }
    ByteBuffer ids = n[6] < 0 ? ByteBuffer.allocate(-n[6]) : ByteBuffer.allocateDirect(n[6]);
    try {
      if (planes.length == 1) {
        segmenter.infer(planes[0], n[3], n[0], n[1], n[2], ids);
      } else {
        segmenter.infer(
            planes[0], n[3], planes[1], planes[2], n[4], n[5], n[0], n[1], n[2], ids);
      }
      byte[] bytes = new byte[ids.capacity()];
      ids.get(bytes);
      out.writeInt(bytes.length);
      out.write(bytes);
    } catch (IllegalArgumentException error) {
      out.writeInt(-1);
      out.writeUTF(error.getMessage());
    }
  }

  private static ByteBuffer plane(DataInputStream in) throws IOException {
    int size = in.readInt();
    if (size < 0) {
      return null;
    }
    byte[] bytes = new byte[size];
    in.readFully(bytes);
    ByteBuffer buffer = ByteBuffer.allocateDirect(size);
    buffer.put(bytes);
    return buffer;
  }
}
