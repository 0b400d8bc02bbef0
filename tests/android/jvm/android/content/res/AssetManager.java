package android.content.res;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;

/** What the library asks of Android's class of this name: streams, and names in a folder; none for a file. */
public final class AssetManager {
    private final File root;

    public AssetManager(File root) {
        this.root = root;
    }

    public InputStream open(String name) throws IOException {
        return new FileInputStream(new File(root, name));
    }

    public String[] list(String name) throws IOException {
        String[] names = new File(root, name).list();
        return names == null ? new String[0] : names;
    }
}
