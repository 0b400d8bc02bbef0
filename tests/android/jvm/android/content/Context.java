package android.content;

import android.content.res.AssetManager;
import java.io.File;

/** What the library asks of Android's class of this name: an app is a folder with assets/ in it. */
public final class Context {
    private final File app;

    public Context(File app) {
        this.app = app;
    }

    public AssetManager getAssets() {
        return new AssetManager(new File(app, "assets"));
    }

    public File getNoBackupFilesDir() {
        return folder("no_backup");
    }

    public File getCacheDir() {
        return folder("cache");
    }

    private File folder(String name) {
        File folder = new File(app, name);
        folder.mkdirs();
        return folder;
    }
}
